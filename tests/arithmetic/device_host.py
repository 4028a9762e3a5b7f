"""The GPU's kernels compiled for the host and run there, thread by thread: what stands in for a GPU in the tests."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from partialsum.accumulators import Accumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.cuda_kernels import THREADS, Program, header_folders, program

_COMPILER = ("g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-frounding-math", "-w")


def _launchers(made: Program) -> str:
    gemms = "".join(f"        case {i}: gemm_{i}(*p); break;\n" for i in range(len(made.kernels)))
    return (
        '\nextern "C" void run(int i, unsigned x, unsigned y, unsigned z, const DeviceProblem* p) {\n'
        f"    partialsum_host::launch({{x, y, z}}, {THREADS}, [=] {{\n"
        f"        switch (i) {{\n{gemms}        }}\n    }});\n}}\n"
        'extern "C" void take(unsigned blocks, const DeviceView* view, DeviceBounds* bounds) {\n'
        f"    partialsum_host::launch({{blocks, 1, 1}}, {THREADS}, [=] {{ census(*view, bounds); }});\n}}\n"
        'extern "C" void begin(DeviceBounds* bounds, int count) {\n'
        f"    partialsum_host::launch({{1, 1, 1}}, {THREADS}, [=] {{ clear(bounds, count); }});\n}}\n"
        'extern "C" void decide(const DeviceFacts* facts, const Rule* rule, int32_t* choice) {\n'
        "    partialsum_host::launch({1, 1, 1}, 1, [=] { choose(*facts, *rule, choice); });\n}\n"
    )


@functools.cache
def load(acc: Accumulator) -> tuple[Program, ctypes.CDLL]:
    """Return the program of ``acc`` and the library that it became on this machine."""
    made = program(acc, small=True)
    folders = (*header_folders(), Path(__file__).parent)
    text = '#include "device_host.hpp"\n' + made.source + _launchers(made)
    digest = hashlib.sha256(text.encode())
    for path in sorted(path for folder in folders for path in folder.rglob("*.*h*")):
        digest.update(path.read_bytes())
    library = Path(tempfile.gettempdir()) / f"partialsum-device-{os.getuid()}-{digest.hexdigest()[:32]}.so"
    if not library.exists():  # several test processes may compile at once; the last one's rename wins
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            source, made_library = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
            source.write_text(text)
            includes = [f"-I{path}" for path in folders]
            subprocess.run([*_COMPILER, *includes, str(source), "-o", str(made_library)], check=True)
            made_library.replace(library)
    return made, ctypes.CDLL(str(library))


def described(x: np.ndarray) -> tuple[int, list[int], list[int]]:
    """Return address, sizes and strides in elements."""
    return x.ctypes.data, list(x.shape), [s // x.itemsize for s in x.strides]


class HostDevice:
    """One accumulator's kernels on the host, launched in the order in which ``cuda.py`` launches them."""

    def __init__(self, acc: Accumulator) -> None:
        self.acc = acc
        self.program, self.library = load(acc)
        self.bounds = np.zeros(16, np.uint32)
        self.chosen = ""

    def choose(self, k: int, a: np.ndarray, b: np.ndarray, c: np.ndarray | None, forbidden: int = 0) -> int:
        """Run the census and the decision; returns the address of the answer."""
        lib = native.load()
        address = self.bounds.ctypes.data
        self.library.begin(ctypes.c_void_p(address), 3)
        for i, x in enumerate((a, b, c)):
            if x is not None and x.size:
                view = lib.device_view(described(x))
                self.library.take(2, view, ctypes.c_void_p(address + 16 * i))
        facts = lib.device_facts(address, k, c is not None, forbidden)
        choice = address + 48
        self.library.decide(facts, lib.device_rule(native.rule(self.acc)), ctypes.c_void_p(choice))
        self.chosen = self.program.kernels[int(self.bounds[12])].name
        return choice

    def gemm(self, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None, forbidden: int = 0) -> np.ndarray:
        """Return ``c + a @ b`` of the device's kernels."""
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        d = np.full(shape, np.nan, np.float32)
        choice = self.choose(a.shape[-1], a, b, c, forbidden)
        start = None if c is None else described(np.broadcast_to(c, shape))
        problem = native.load().device_gemm(
            described(a), described(b), start, described(d), rule=native.rule(self.acc), choice=choice
        )
        self.run(problem, shape[-2], shape[-1], int(np.prod(shape[:-2], dtype=int)))
        return d

    def run(self, problem: bytes, m: int, n: int, batch: int) -> None:
        """Launch every kernel; all but the chosen one return at once."""
        for i, kernel in enumerate(self.program.kernels):
            self.library.run(i, *kernel.grid(m, n, batch), problem)
