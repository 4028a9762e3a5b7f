"""Threads: torch's OpenMP team where torch is loaded, threads of our own elsewhere, and the same bits from all."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import partialsum as ps
from partialsum.arithmetic import native

POSIX = sys.platform != "win32"
THREADS = 3
ALONE = """
import sys, zlib
import numpy as np, partialsum as ps
from partialsum.arithmetic import native
native.set_num_threads({threads})
rng = np.random.default_rng(5)
a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((300, 200), (200, 700)))
d = ps.gemm(a, b, "e6m5,stochastic,seed=3", inputs="e4m3fn")
assert "torch" not in sys.modules
print(native.load().joins_openmp(), zlib.crc32(d.tobytes()))
"""


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    native.set_num_threads(THREADS)
    yield
    native.set_num_threads(None)


def checksum() -> int:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((300, 200), (200, 700)))
    return zlib.crc32(ps.gemm(a, b, "e6m5,stochastic,seed=3", inputs="e4m3fn").tobytes())


def test_own_threads_and_the_team_of_torch_give_the_same_bits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(threads=THREADS)], capture_output=True, text=True, check=True
    )
    joined, alone = done.stdout.split()
    assert joined == "False"
    assert checksum() == int(alone)


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP run time on Linux")
def test_with_torch_the_threads_are_its_team() -> None:
    assert native.load().joins_openmp()


def _in_a_child(answers: object) -> None:
    answers.put((native.load().joins_openmp(), checksum()))  # type: ignore[attr-defined]


@pytest.mark.skipif(not POSIX, reason="forks")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    torch.relu(torch.randn(1000, 1000))  # a team that the child will not have
    expected = checksum()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_a_child, args=(answers,))
    child.start()
    try:
        assert answers.get(timeout=60) == (False, expected)
    finally:
        child.kill()
        child.join()


def test_more_threads_than_work_and_many_sizes() -> None:
    rng = np.random.default_rng(6)
    for threads in (1, 2, 5, 16):
        native.set_num_threads(threads)
        for m, n, k in ((1, 160, 3000), (16, 144, 5000), (9, 33, 7), (129, 97, 257), (8, 1056, 900)):
            a, b = rng.standard_normal((m, k), dtype=np.float32), rng.standard_normal((k, n), dtype=np.float32)
            got = ps.gemm(a, b, "e8m6")
            native.set_num_threads(1)
            np.testing.assert_array_equal(got.view(np.uint32), ps.gemm(a, b, "e8m6").view(np.uint32))
            native.set_num_threads(threads)


def test_no_thread_of_the_team_flushes_subnormals() -> None:
    a = np.full((256, 256), 2.0**-70, dtype=np.float32)
    b = np.full((256, 256), 2.0**-70, dtype=np.float32)
    x = np.full(2**20, 3 * 2.0**-149, dtype=np.float32)
    assert torch.set_flush_denormal(True)
    try:
        torch.relu(torch.randn(2000, 2000))  # the setting reaches threads that run torch's work
        product, rounded = ps.gemm(a, b, "fp32"), ps.quantize(x, "e8m22")
    finally:
        torch.set_flush_denormal(False)
    assert np.all(product == 256 * 2.0**-140)
    assert np.all(rounded == 4 * 2.0**-149)
