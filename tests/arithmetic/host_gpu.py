"""A GPU on the host: what the tests have in place of one.

The kernels' own sources are compiled for the host and run there thread by thread (device_host.hpp), below a driver that
NVIDIA's bindings load like the real one (host_driver.cpp). Everything above it is the package's: what is launched, in
which order, on which grid, with which arguments.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import mmap
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tools
from partialsum.arithmetic import cuda, cuda_device
from partialsum.arithmetic.cuda_kernels import header_folders

_COMPILER = (
    *("g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-frounding-math"),
    "-fno-gnu-unique",  # shared memory is static, and each library has its own
    "-w",
    *os.environ.get("PARTIALSUM_HOST_FLAGS", "").split(),  # for a run under sanitizers, say: see CONTRIBUTING.md
)
_ENTRY = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(([^)]*)\)')
UNITS = 4
"""Multiprocessors of the device that the host plays: few, so that small results reach every shape."""

STREAM = 0x5CA1E
"""Its stream."""


_CHECKED = ("-DPARTIALSUM_CHECKED", "-fsanitize=thread")
"""Every access to memory calls ``device_checks.cpp``, which stands in for the sanitizer's own library."""


def build(text: str, *, name: str = "kernels.so", options: Sequence[str] = (), checked: bool = False) -> Path:
    """Compile C++ into a shared library, once for each text and state of the headers."""
    folders = (*header_folders(), Path(__file__).parent)
    digest = hashlib.sha256((text + repr((_COMPILER, name, options, checked))).encode())
    for path in sorted(path for folder in folders for path in (*folder.rglob("*.*h*"), *folder.glob("*.cpp"))):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"partialsum-device-{os.getuid()}-{digest.hexdigest()[:32]}"
    library = folder / name
    if not library.exists():  # several test processes may compile at once; the last one's rename wins
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, result = Path(work) / "source.cpp", Path(work) / name
            source.write_text(text)
            includes = [f"-I{path}" for path in folders]
            sources = [str(source)]
            if checked:
                sources = [str(Path(work) / "kernels.o"), str(Path(__file__).with_name("device_checks.cpp"))]
                subprocess.run([*_COMPILER, *_CHECKED, *includes, "-c", str(source), "-o", sources[0]], check=True)
            command = [*_COMPILER, *includes, *sources, "-o", str(result), "-ldl", *options]
            subprocess.run(command, check=True)
            result.replace(library)
    return library


def compile_for_host(sources: Sequence[str], architecture: str) -> list[bytes]:
    """Stand in for ``compile_kernels``: all sources in one library, whose name is the machine code."""
    assert architecture in ("host", "checked host")
    kernels = "".join(sources)
    text = f'#include "device_host.hpp"\n{kernels}{_launchers(kernels)}'
    library = build(text, checked=architecture == "checked host")
    return [str(library).encode() + b"\0"] * len(sources)


def _launchers(text: str) -> str:
    """Write a function for every entry that unpacks a launch's arguments as the device does."""
    launchers = []
    for name, parameters in _ENTRY.findall(text):
        types = [
            re.sub(r"__grid_constant__|const(?!\w)", "", p).rsplit(maxsplit=1)[0].strip()
            for p in parameters.split(",")
        ]
        values = ", ".join(f"*static_cast<{kind}*>(arguments[{i}])" for i, kind in enumerate(types))
        sizes = ", ".join(f"sizeof({kind})" for kind in types)
        launchers.append(
            f'\nextern "C" const size_t {name}_sizes[] = {{{sizes}, 0}};\n'
            f'extern "C" void {name}_on_host(const unsigned* grid, unsigned threads, void** arguments) {{\n'
            f"    partialsum_host::launch({{grid[0], grid[1], grid[2]}}, threads, [=] {{ {name}({values}); }});\n}}\n"
        )
    return "".join(launchers)


@functools.cache
def host_driver() -> ctypes.CDLL:
    """Load the host's driver; NVIDIA's bindings will find it loaded already."""
    text = Path(__file__).with_name("host_driver.cpp").read_text()
    library = build(text, name="libcuda.so.1", options=("-Wl,-soname,libcuda.so.1",))
    return ctypes.CDLL(str(library))


class Gpu:
    """A device for the tests: a real one, or played by the host."""

    def __init__(self, device: str, *, checked: bool = False) -> None:
        self.device, self.checked = device, checked
        self.launched: list[str] = []
        """Names of the kernels launched so far, where the host plays."""

    def tensor(self, x: np.ndarray) -> torch.Tensor:
        """Move an array there; strides stay where torch can keep them."""
        here = torch.from_numpy(x)
        if self.device != "cpu":
            return torch.empty_strided(x.shape, here.stride(), device=self.device).copy_(here)
        return torch.from_numpy(_before_a_wall(x)) if here.is_contiguous() else here


def _before_a_wall(x: np.ndarray) -> np.ndarray:
    """Copy an array to where memory ends behind it, so that reading on is no secret."""
    whole = -(-max(x.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    wall = np.frombuffer(memory, np.uint8).ctypes.data + whole
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
        raise OSError("memory cannot be protected")
    copy = np.frombuffer(memory, x.dtype, x.size, whole - x.nbytes).reshape(x.shape)
    copy[...] = x
    return copy


class _Watch:
    """Compares the size of every argument of a launch with what the kernel reads there."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.entries: dict[int, tuple[str, list[int]]] = {}
        self.findings: list[Any] = []
        self.load_there, self.launch_there = cuda_device.load, cuda_device.launch

    def load(self, code: bytes, names: tuple[str, ...], device: torch.device) -> dict[str, Any]:
        functions = self.load_there(code, names, device)
        library = ctypes.CDLL(code.rstrip(b"\0").decode())
        for name, function in functions.items():
            sizes = (ctypes.c_size_t * 16).in_dll(library, f"{name}_sizes")
            self.entries[int(function)] = name, list(itertools.takewhile(bool, sizes))
        if self.gpu.checked and library.checks_findings not in self.findings:
            library.checks_findings.restype = ctypes.c_char_p
            self.findings.append(library.checks_findings)
        return functions

    def launch(self, function: Any, grid: tuple[int, int, int], threads: int, on: int, *arguments: Any) -> None:
        name, sizes = self.entries[int(function)]
        assert [ctypes.sizeof(x) for x in arguments] == sizes, f"arguments of {name}"
        assert on == STREAM
        self.gpu.launched.append(name)
        self.launch_there(function, grid, threads, on, *arguments)
        found = b"".join(tell() for tell in self.findings).decode()
        assert not found, f"{name}: {found}"


@contextlib.contextmanager
def host_gpu(monkeypatch: pytest.MonkeyPatch, *, checked: bool = False) -> Iterator[Gpu]:
    """Play a GPU on the host: CPU tensors take the way of CUDA tensors. Checked: no access to memory goes unseen."""
    if torch.cuda.is_available():
        pytest.skip("the real driver is loaded")
    tools.require_tool("cuda.bindings")
    host_driver()
    gpu, architecture = Gpu("cpu", checked=checked), "checked host" if checked else "host"
    watch = _Watch(gpu)
    cuda_device.driver.cache_clear()
    cuda.load.cache_clear()
    monkeypatch.setattr(cuda_device, "properties", lambda device: cuda_device.Properties(UNITS, architecture))
    monkeypatch.setattr(cuda_device, "stream", lambda device: STREAM)
    monkeypatch.setattr(cuda_device, "_selected", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda_device, "is_capturing", lambda: False)
    monkeypatch.setattr(cuda_device, "on_gpu", lambda *tensors: True)
    monkeypatch.setattr(cuda_device, "load", watch.load)
    monkeypatch.setattr(cuda_device, "launch", watch.launch)
    monkeypatch.setattr(cuda, "compile_kernels", compile_for_host)
    yield gpu
    cuda.load.cache_clear()
    cuda_device.driver.cache_clear()
