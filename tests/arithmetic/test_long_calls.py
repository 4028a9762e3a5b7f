"""Long calls: Ctrl-C ends them, other Python threads run meanwhile, and they need little memory beyond their operands."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import partialsum as ps
from bits import assert_same_bits
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm

_ENDLESS = """
import signal, sys, numpy as np, partialsum as ps
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it, as background jobs do
from partialsum.arithmetic import native
ps.set_num_threads(2)
a = np.ones((3000, 30000), dtype=np.float32)
x, w = np.ones((64, 64, 64, 64), dtype=np.float32), np.ones((256, 64, 7, 7), dtype=np.float32)
print("started", flush=True)
try:
    with native.forbid_kernels((1 << native.load().kernels().index("general")) - 1), ps.simd_level("portable"):
        ps.conv2d(x, w, sys.argv[1][5:]) if sys.argv[1].startswith("conv ") else ps.gemm(a, a.T, sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("what", ["e6m9", "mi300-fp8", "int32,saturate", "conv e5m10,chunk=64"])
def test_control_c_ends_a_call_that_would_take_minutes(what: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _ENDLESS, what], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        began = time.perf_counter()
        try:
            out, _ = run.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    assert out == "interrupted\n"
    assert time.perf_counter() - began < 20


def test_other_python_threads_run_during_a_call() -> None:
    a = np.ones((300, 3000), dtype=np.float32)
    done = threading.Event()

    def work() -> None:
        with native.forbid_kernels((1 << native.load().kernels().index("general")) - 1):
            gemm(a, a.T, "e6m9")
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    turns = 0
    while not done.is_set():
        turns += 1
        time.sleep(0.001)
    worker.join()
    assert turns > 20  # a call that kept the interpreter's lock would allow one or two


_MEMORY = """
import numpy as np, resource, sys
import partialsum as ps
ps.set_num_threads(1)
name, layout = sys.argv[1:]
small = np.ones((8, 8), dtype=np.float32)
ps.gemm(small, small, name)
shapes = {"strided": ((4800, 4800), (4800, 64)), "few rows": ((2, 2400), (2400, 2400))}
shapes["long"] = (2, 3000000), (3000000, 2)
first, second = shapes.get(layout, ((2400, 2400), (2400, 64)))
a, b = np.ones(first, dtype=np.float32), np.ones(second, dtype=np.float32)
if layout == "transposed":
    a = a.T
if layout == "strided":
    a, b = a[::2, ::2], b[::2]
a[0, 0] = b[0, 0] = 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
d = ps.gemm(a, b, name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - d.nbytes)
"""


def _memory(name: str, layout: str) -> int:
    run = subprocess.run([sys.executable, "-c", _MEMORY, name, layout], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.parametrize("layout", ["plain", "transposed", "strided", "few rows", "long"])
@pytest.mark.parametrize("name", ["e6m9,chunk=64", "h100-fp16"])
def test_memory_beyond_operands_and_result(name: str, layout: str) -> None:
    assert _memory(name, layout) < 16 * 2**20  # the larger operand alone takes 22 MiB: nobody copied it


@pytest.mark.parametrize("name", ["int32", "int60,saturate", "e8m22,stochastic", "lba12-2024", "mi300-fp8"])
def test_memory_of_other_accumulators(name: str) -> None:
    assert _memory(name, "strided") < 16 * 2**20


@pytest.mark.parametrize("name", ["h100-fp8", "mi300-fp16", "int20,saturate", "int32", "e8m22"])
def test_ten_million_products_of_every_kind(name: str) -> None:
    k = 1_000_000 if name in ("e8m22", "mi300-fp16") else 10_000_000
    a = np.resize(np.float32([3, -1, 2, 5, -7, 1, 0, 8]), (1, k))
    b = np.resize(np.float32([1, -1, 2, 1, -2]), (k, 1))
    want = gemm(a, b, name)
    with ps.simd_level("portable"):
        native.set_num_threads(2)
        try:
            assert_same_bits(gemm(a, b, name), want, name)
        finally:
            native.set_num_threads(None)
    if name == "int32":
        assert want[0, 0] == float((a[0].astype(np.int64) * b[:, 0].astype(np.int64)).sum())
