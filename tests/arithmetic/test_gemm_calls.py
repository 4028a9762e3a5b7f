"""``gemm`` as a function: layouts, batches, errors, settings, interruption and memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import partialsum as ps
from bits import assert_same_bits
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm

ALL_BUT_GENERAL = (1 << native.load().kernels().index("general")) - 1


def normals(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return ps.quantize(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), "e5m2")


@pytest.mark.parametrize("name", ["e6m9", "e6m9,stochastic,chunk=16", "e4m3fn,saturate"])
def test_layouts_do_not_matter(name: str) -> None:
    a, b = normals((20, 50)), normals((50, 37), 1)
    want = gemm(a, b, name, backend="reference")
    wide, tall = np.zeros((40, 150), dtype=np.float32), np.zeros((50, 74), dtype=np.float32)
    wide[::2, ::3], tall[:, ::2] = a, b
    lefts = (a, np.asfortranarray(a), wide[::2, ::3], np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1])
    rights = (b, np.asfortranarray(b), tall[:, ::2], np.ascontiguousarray(b[:, ::-1])[:, ::-1])
    for left in lefts:
        for right in rights:
            assert_same_bits(gemm(left, right, name), want)
            assert_same_bits(gemm(torch.from_numpy(a), torch.from_numpy(b), name).numpy(), want)


@pytest.mark.parametrize("fmt", ["e5m2", "q4.4", "mxfp4", "nvfp4"])
def test_layouts_do_not_matter_to_quantised_operands(fmt: str) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((20, 50), (50, 37)))
    want = gemm(a, b, "e6m9", inputs=fmt, backend="reference")
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            assert_same_bits(gemm(left, right, "e6m9", inputs=fmt), want)


@pytest.mark.parametrize("name", ["e6m9,chunk=16", "e6m4,stochastic", "h100-fp8", "int20"])
@pytest.mark.parametrize("columns", [1, 7])
def test_a_large_operand_quantised_in_slices_gives_the_same_bits(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    a, c = rng.standard_normal((2, 5, 40), dtype=np.float32), rng.integers(-3, 4, (5, 1)).astype(np.float32)
    b = rng.standard_normal((23, 40), dtype=np.float32).T * 3
    fmt = "int4" if name == "int20" else "e4m3fn"
    want = gemm(a, b, name, inputs=fmt, c=c)
    monkeypatch.setattr(sys.modules["partialsum.arithmetic.gemm"], "_SLICE", columns * 40)
    assert_same_bits(gemm(a, b, name, inputs=fmt, c=c), want)


def test_unaligned_and_read_only_arrays() -> None:
    raw = bytearray(4 * 6 + 1)
    a = np.frombuffer(raw, dtype=np.uint8)[1:].view(np.float32).reshape(2, 3)
    a[...] = [[1, 2, 3], [4, 5, 6]]
    a.flags.writeable = False
    assert_same_bits(gemm(a, np.eye(3, dtype=np.float32), "e6m9"), np.float32([[1, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize("shapes", [((3, 4, 5), (5, 6)), ((4, 5), (2, 3, 5, 6)), ((2, 1, 4, 5), (3, 5, 6))])
def test_batches_broadcast_and_have_their_own_random_words(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = normals(shapes[0]), normals(shapes[1], 1)
    for c in (None, normals((4, 6), 2), normals((6,), 3)):
        got = gemm(a, b, "e6m3,stochastic", c=c)
        assert_same_bits(got, gemm(a, b, "e6m3,stochastic", c=c, backend="reference"))


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_nothing_to_add(shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, b = np.ones((m, k), dtype=np.float32), np.ones((k, n), dtype=np.float32)
    assert_same_bits(gemm(a, b, "e6m9"), np.full((m, n), k, dtype=np.float32))
    c = np.full((m, n), 1 + 2.0**-20, dtype=np.float32)
    expected = c if k == 0 else gemm(a, b, "e6m9", c=c, backend="reference")
    assert_same_bits(gemm(a, b, "e6m9", c=c), expected)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ((2, 3), (4, 2), {}, r"a and b must have shapes .*got \(2, 3\) and \(4, 2\)"),
        ((3,), (3, 2), {}, r"a and b must have shapes"),
        ((2, 2, 3), (3, 3, 2), {}, "leading dimensions of a and b must broadcast"),
        (
            (2, 3),
            (3, 2),
            {"c": np.zeros((3, 3), dtype=np.float32)},
            r"c must broadcast to the result's shape \(2, 2\)",
        ),
        ((2, 3), (3, 2), {"c": np.zeros((2, 2))}, "c must have dtype float32 .*got float64"),
        ((2, 3), (3, 2), {"backend": "gpu"}, "backend must be one of cpu, cuda, reference"),
        ((2, 3), (3, 2), {"inputs": ("e5m2",)}, "inputs must be one format or a pair of formats, got 1 of them"),
        ((2, 3), (3, 2), {"accumulator": "e9m3"}, "exp_bits must be 1 to 8, got 9"),
    ],
)
def test_mistakes_are_told_in_one_sentence(a: tuple, b: tuple, options: dict, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        gemm(np.ones(a, dtype=np.float32), np.ones(b, dtype=np.float32), **options)


def test_other_kinds_of_operand_are_refused() -> None:
    x = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(ps.InputError, match="a must be a numpy array or a torch tensor, got list"):
        gemm([[1.0]], x)
    with pytest.raises(ps.InputError, match=r"b must have dtype float32 .*got int64"):
        gemm(x, np.ones((2, 2), dtype=np.int64))
    with pytest.raises(ps.InputError, match="b must be a numpy array like the first operand, got a torch tensor"):
        gemm(x, torch.ones(2, 2))
    with pytest.raises(ps.InputError, match="c must be a torch tensor like the first operand, got a numpy array"):
        gemm(torch.ones(2, 2), torch.ones(2, 2), c=x)
    with pytest.raises(ps.InputError, match="w must be a numpy array like the first operand, got a torch tensor"):
        ps.conv1d(np.ones((1, 1, 3), dtype=np.float32), torch.ones(1, 1, 2))


def test_levels_are_checked_and_restored() -> None:
    before = native.current_simd_level()
    with ps.simd_level("portable"):
        assert native.current_simd_level() == "portable"
    assert native.current_simd_level() == before
    with pytest.raises(ps.InputError, match="name must be a level of this processor"), ps.simd_level("avx1024"):
        pass


def test_threads_follow_torch_until_told() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert ps.num_threads() == 1
        ps.set_num_threads(3)
        assert ps.num_threads() == 3
    finally:
        torch.set_num_threads(before)
        ps.set_num_threads(None)
    with pytest.raises(ps.InputError, match="n must be a positive integer or None, got 0"):
        ps.set_num_threads(0)


def test_flushing_denormals_elsewhere_does_not_reach_the_kernels() -> None:
    a, b = np.float32([[2.0**-64]]), np.float32([[2.0**-66, 3 * 2.0**-68]])
    want = gemm(a, b, "e8m7", backend="reference")
    assert want.all()
    torch.set_flush_denormal(True)
    try:
        got = [gemm(a, b, "e8m7"), gemm(a, b, "fp32")]
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(got[0], want)
    assert_same_bits(got[1], gemm(a, b, "fp32", backend="reference"))


def test_a_long_call_can_be_interrupted() -> None:
    def raise_alarm(*_: object) -> None:
        raise TimeoutError

    a = np.ones((2000, 20000), dtype=np.float32)
    before = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        began = time.perf_counter()
        with native.forbid_kernels(ALL_BUT_GENERAL), pytest.raises(TimeoutError):
            gemm(a, a.T, "e6m9")  # minutes, if nobody stops it
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.perf_counter() - began < 20


_MEMORY = """
import numpy as np, resource, sys
import partialsum as ps
ps.set_num_threads(2)
x = np.ones((8, 8), dtype=np.float32)
ps.gemm(x, x, "e6m9")
a, b = np.ones((3000, 3000), dtype=np.float32), np.ones((3000, 1000), dtype=np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
d = ps.gemm(a, b, "e6m9,stochastic,product=e6m9,chunk=700" if sys.argv[1] == "most" else "e6m9")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - d.nbytes)
"""


@pytest.mark.parametrize("which", ["least", "most"])
def test_working_memory_is_small(which: str) -> None:
    script = _MEMORY.replace("3000", "600") if which == "most" else _MEMORY
    run = subprocess.run([sys.executable, "-c", script, which], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2 * 16 * 2**20


@pytest.mark.parametrize("name", ["e6m9", "e6m9,stochastic,product=e6m9,chunk=30", "h100-fp8", "int32"])
@pytest.mark.parametrize("n", [544, 4096, 4196, 4640])
def test_few_rows_and_columns_in_blocks_of_every_width(n: int, name: str) -> None:
    # Blocks of few rows are wide and short; the last one is narrower, and then packs more steps at once.
    a, b = normals((3, 520)), normals((520, n), 1)
    a, b = (a.round(), b.round()) if name == "int32" else (a, b)
    want = gemm(np.concatenate([a] * 4), b, name)[:3]  # more rows: other blocks
    for threads in (1, 3):
        native.set_num_threads(threads)
        try:
            for level in native.simd_levels()[1:]:
                with ps.simd_level(level):
                    assert_same_bits(gemm(a, b, name), want, (level, threads))
                    if "stochastic" not in name:
                        turned = gemm(np.ascontiguousarray(b.T), a.T, name).T
                        assert_same_bits(np.ascontiguousarray(turned), want, (level, threads))
        finally:
            native.set_num_threads(None)
