"""The sequential accumulator and the integer register, against numpy, ml_dtypes, apytypes and hand computation."""

from __future__ import annotations

import math
from fractions import Fraction

import apytypes
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import partialsum as ps
from oracles import same, sequential_sum
from partialsum.arithmetic import random
from partialsum.arithmetic.random import Stream
from partialsum.arithmetic.reference import accumulate, gemm_reference
from partialsum.arithmetic.rounding import round_to_format
from strategies import accumulators, float32s, format_values, gemm_operands, integer_accumulators

INF, NAN = math.inf, math.nan
FP8 = ps.parse_format("e5m2")


@pytest.mark.parametrize("chunk", [None, 1, 5])
@given(gemm_operands(format_values(ps.parse_format("fp16"), special=True)))
@settings(max_examples=100, deadline=None)
def test_unfused_float16_equals_numpy(chunk: int | None, operands: tuple) -> None:
    a, b, _ = operands
    with np.errstate(all="ignore"):
        expected = sequential_sum(a, b, np.float16, chunk)
    assert same(gemm_reference(a, b, ps.Accumulator("fp16", product="fp16", chunk=chunk)), expected)


@pytest.mark.parametrize("chunk", [None, 3])
@given(gemm_operands(format_values(ps.FloatFormat(7, 7), special=True)))
@settings(max_examples=100, deadline=None)
def test_unfused_bfloat16_equals_ml_dtypes(chunk: int | None, operands: tuple) -> None:
    a, b, _ = operands  # seven exponent bits: no product falls below float32, where ml_dtypes rounds twice
    with np.errstate(all="ignore"):
        expected = sequential_sum(a, b, ml_dtypes.bfloat16, chunk)
    assert same(gemm_reference(a, b, ps.Accumulator("bf16", product="bf16", chunk=chunk)), expected)


@given(gemm_operands(format_values(FP8, special=True)))
@settings(max_examples=150, deadline=None)
def test_fused_float16_of_fp8_equals_float64_rounded_once(operands: tuple) -> None:
    a, b, c = operands  # products of e5m2 are multiples of 2**-32 below 2**32: float64 adds them to fp16 exactly
    c = np.zeros((a.shape[0], b.shape[1]), np.float32) if c is None else c
    total = c.astype(np.float64)
    with np.errstate(all="ignore"):
        for i in range(a.shape[1]):
            total = (
                (total + a[:, i : i + 1].astype(np.float64) * b[i : i + 1]).astype(np.float16).astype(np.float64)
            )
    assert same(gemm_reference(a, b, "fp16", c=c), total.astype(np.float32))


APYTYPES_ROUNDING = {
    "nearest_even": apytypes.QuantizationMode.TIES_EVEN,
    "nearest_away": apytypes.QuantizationMode.TIES_AWAY,
    "toward_zero": apytypes.QuantizationMode.TO_ZERO,
    "down": apytypes.QuantizationMode.TO_NEG,
    "up": apytypes.QuantizationMode.TO_POS,
}


@pytest.mark.parametrize("rounding", APYTYPES_ROUNDING)
@pytest.mark.parametrize(("exp_bits", "man_bits"), [(6, 9), (4, 5), (5, 10), (5, 2)])
def test_unfused_sums_equal_apytypes(rounding: str, exp_bits: int, man_bits: int) -> None:
    rng = np.random.default_rng(exp_bits + man_bits)
    register = ps.FloatFormat(exp_bits, man_bits)
    acc = ps.Accumulator(register, rounding, product=register)
    lowest = -(-register.min_exponent // 2)  # apytypes' accumulator (not its cast) misrounds subnormal products
    for _ in range(15):
        a, b = (
            apytypes.APyFloatArray.from_float(rng.choice([-1, 1], 30) * rng.integers(4, 8, 30) / 4 * 2.0**e, 5, 2)
            for e in (rng.integers(lowest, 1, 30), rng.integers(lowest, 1, 30))
        )
        with apytypes.APyFloatAccumulatorContext(exp_bits, man_bits, quantization=APYTYPES_ROUNDING[rounding]):
            expected = float(a @ b)
        assert same(accumulate(a.to_numpy().tolist(), b.to_numpy().tolist(), acc), expected)


@given(accumulators(), gemm_operands(float32s(), max_mn=2, max_k=8), st.data())
@settings(max_examples=300, deadline=None)
def test_every_accumulator_is_its_steps_written_out(
    acc: ps.Accumulator, operands: tuple, data: st.DataObject
) -> None:
    a, b, c = operands
    try:
        result = gemm_reference(a, b, acc, c=c)
    except ps.InputError:
        assert "finite" in str(acc)
        return
    i, j = data.draw(st.integers(0, result.shape[0] - 1)), data.draw(st.integers(0, result.shape[1] - 1))
    total = 0.0 if c is None else float(c[i, j])
    part = 0.0
    for step, (x, y) in enumerate(zip(a[i].tolist(), b[:, j].tolist(), strict=True)):
        product = _naive_product(x, y)
        if acc.product is not None:
            product = _rounded(product, acc.product, acc, (Stream.PRODUCT_ROW, Stream.PRODUCT_COLUMN), (i, j, step))
        main = (Stream.ROW, Stream.COLUMN)
        if acc.chunk is None:
            total = _rounded(_naive_sum(total, product, acc), acc.format, acc, main, (i, j, step))
            continue
        part = _rounded(_naive_sum(part, product, acc), acc.format, acc, main, (i, j, step))
        if (step + 1) % acc.chunk == 0 or step + 1 == a.shape[1]:
            streams = (Stream.CHUNK_ROW, Stream.CHUNK_COLUMN)
            total = _rounded(_naive_sum(total, part, acc), acc.format, acc, streams, (i, j, step // acc.chunk))
            part = 0.0
    assert same(result[i, j], total)


def _naive_product(x: float, y: float) -> Fraction | float:
    return Fraction(x) * Fraction(y) if math.isfinite(x) and math.isfinite(y) and x and y else x * y


def _naive_sum(x: float, y: Fraction | float, acc: ps.Accumulator) -> Fraction | float:
    if not math.isfinite(x) or not math.isfinite(y):
        return x + (y if isinstance(y, float) and not math.isfinite(y) else 0.0)
    exact = Fraction(x) + Fraction(y)
    if exact:
        return exact
    if x == 0 and math.copysign(1, x) == math.copysign(1, y):
        return x
    return -0.0 if acc.rounding == "down" else 0.0


def _rounded(x: Fraction | float, fmt: ps.FloatFormat, acc: ps.Accumulator, streams: tuple, place: tuple) -> float:
    i, j, step = place
    word = random.word(random.key(acc.seed, streams[0]), i, step) ^ random.word(
        random.key(acc.seed, streams[1]), j, step
    )
    return round_to_format(
        x, fmt, acc.rounding, acc.overflow, acc.subnormals, random_word=word, random_bits=acc.random_bits
    )


def test_swamping_and_chunks_by_hand() -> None:
    ones = np.ones((1, 4096), np.float32)
    assert gemm_reference(ones, ones.T, "e6m9")[0, 0] == 1024  # 1024 + 1 is a tie that goes to even, for ever
    assert gemm_reference(ones, ones.T, "e6m9,chunk=64")[0, 0] == 4096
    assert gemm_reference(ones, ones.T, "e6m9,toward_zero")[0, 0] == 1024
    assert gemm_reference(ones, ones.T, "e6m9,nearest_away")[0, 0] == 2048  # 512 ties away, then quanta of 4
    assert gemm_reference(ones, ones.T, "e4m3,saturate")[0, 0] == 16


def test_starting_value_enters_unrounded_and_joins_the_total_of_chunks() -> None:
    c = np.float32(1 + 2.0**-12)
    one, half = np.ones((1, 1), np.float32), np.full((1, 1), 2.0**-12, np.float32)
    assert gemm_reference(half, one, "e6m9", c=c)[0, 0] == 1  # c is finer than the register, the first sum is not
    assert gemm_reference(half[:, :0], one[:0], "e6m9", c=c)[0, 0] == c
    assert gemm_reference(half[:, :0], one[:0], "e6m9,chunk=4", c=c)[0, 0] == c
    k = np.full((1, 8), 2.0**-10, np.float32)
    assert gemm_reference(k, np.ones((8, 1), np.float32), "e6m9", c=np.float32(1))[0, 0] == 1
    assert gemm_reference(k, np.ones((8, 1), np.float32), "e6m9,chunk=8", c=np.float32(1))[0, 0] == 1 + 2.0**-7


@pytest.mark.parametrize("rounding", list(ps.Rounding))
def test_signed_zeros(rounding: str) -> None:
    minus = -0.0 if rounding == "down" else 0.0
    acc = ps.Accumulator("e5m2", rounding)
    assert same(accumulate([1.0, 1.0], [1.0, -1.0], acc), minus)
    assert same(accumulate([0.0], [-1.0], acc), minus)  # +0 + -0
    assert same(accumulate([0.0], [-1.0], acc, c=-0.0), -0.0)
    assert same(accumulate([], [], acc), 0.0)


def test_nan_and_infinity_propagate() -> None:
    for acc in ("e5m2", "e5m2,saturate"):
        cases = [
            ([INF, 1], [1, 1], INF),
            ([INF, INF], [1, -1], NAN),
            ([INF], [0], NAN),
            ([1, NAN, 1], [1, 1, 1], NAN),
        ]
        for a, b, expected in cases:
            d = gemm_reference(np.array([a]), np.array([b]).T, acc)
            assert same(d[0, 0], expected)
    nan = np.uint32(0xFFC12345).view(np.float32)
    assert gemm_reference([[nan]], [[1.0]], "fp32").view(np.uint32)[0, 0] == 0x7FC00000
    assert gemm_reference(np.zeros((1, 0)), np.zeros((0, 1)), "fp32", c=nan).view(np.uint32)[0, 0] == 0x7FC00000
    row, column = [[1e30, -1e30]], [[1e30], [1e30]]  # exact products of ±1e60
    assert same(gemm_reference(row, column, "e8m7")[0, 0], INF)
    assert gemm_reference(row, column, "e8m7,saturate")[0, 0] == -ps.parse_format("e8m7").max


def test_stochastic_sums_are_unbiased_and_reproducible() -> None:
    a, b = np.full((16, 60), 1.0, np.float32), np.full((60, 16), 0.01, np.float32)
    exact = float(np.float32(0.01)) * 60
    first = gemm_reference(a, b, "e6m3,stochastic,seed=4")
    assert np.array_equal(first, gemm_reference(a, b, "e6m3,stochastic,seed=4"))
    assert not np.array_equal(first, gemm_reference(a, b, "e6m3,stochastic,seed=5"))
    errors = first - exact
    assert abs(errors.mean()) < 5 * errors.std() / 16
    assert gemm_reference(a[:1], b[:, :1], "e6m3")[0, 0] == 0.25  # nearest even stops here


def test_random_words_depend_on_batch_row_column_and_step_only() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 4, 20)).astype("f4"), rng.standard_normal((3, 20, 5)).astype("f4")
    acc = ps.parse_accumulator("e6m4,stochastic,seed=7,chunk=6")
    whole = gemm_reference(a, b, acc)
    assert whole.shape == (3, 4, 5)
    assert np.array_equal(whole[0], gemm_reference(a[0], b[0], acc))
    assert not np.array_equal(whole[1], gemm_reference(a[1], b[1], acc))
    assert np.array_equal(whole[0, :2, :3], gemm_reference(a[0, :2], b[0, :, :3], acc))
    shared = gemm_reference(a[:, None], b[None, :], acc)
    assert shared.shape == (3, 3, 4, 5)


def test_inputs_are_quantized_first() -> None:
    a, b = np.array([[0.3, 500.0]]), np.array([[1.0], [1.0]])
    assert gemm_reference(a, b, "fp32", inputs="e4m3fn")[0, 0] == 448.3125
    assert gemm_reference(a, b, "fp32", inputs=("int8", None))[0, 0] == 127
    assert gemm_reference(a, b, "fp32", inputs=(None, "e4m3fn"))[0, 0] == np.float32(500.3)


@given(integer_accumulators(), st.data())
@settings(max_examples=200, deadline=None)
def test_integer_registers(acc: ps.IntegerAccumulator, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, 12))
    a, b = (data.draw(st.lists(st.integers(-128, 127), min_size=k, max_size=k)) for _ in "ab")
    low, high = -(2 ** (acc.bits - 1)), 2 ** (acc.bits - 1) - 1
    register = 0
    for x, y in zip(a, b, strict=True):
        register += x * y
        if acc.overflow == "saturate":
            register = min(max(register, low), high)
    register = (register - low) % 2**acc.bits + low
    d = gemm_reference(np.array([a], np.float32), np.array([b], np.float32).T, acc)
    assert d[0, 0] == np.float32(register)


def test_integer_register_by_hand() -> None:
    row, column = np.array([[127.0, 127.0, -127.0]]), np.array([[127.0], [127.0], [127.0]])
    assert gemm_reference(row, column, "int16")[0, 0] == 16129
    assert gemm_reference(row, column, "int15,saturate")[0, 0] == 16383 - 16129
    assert gemm_reference(row, column, "int15")[0, 0] == 16129
    assert gemm_reference(row[:, :2], column[:2], "int15")[0, 0] == 32258 - 32768
    assert gemm_reference(row, column, "int8", c=np.float32(300))[0, 0] == (300 + 16129 + 128) % 256 - 128


def test_wide_integer_results_are_rounded_once_on_the_way_out() -> None:
    a, b = np.array([[2.0**23, 1.0]]), np.array([[4.0], [1.0]])
    assert gemm_reference(a, b, "int32")[0, 0] == 2.0**25  # 2**25 + 1, to even
    assert gemm_reference(a, b, "int32", c=np.float32(1.0))[0, 0] == 2.0**25  # 2**25 + 2, a tie


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5]], [[1.0]], "int8"), "a must hold integers for an IntegerAccumulator, got 0.5"),
        (([[1.0]], [[NAN]], "int8"), "b must hold integers for an IntegerAccumulator, got nan"),
        (([[1.0, 2.0]], [[1.0]], "fp16"), r"a and b must have shapes \[..., m, k\] and \[..., k, n\]"),
        (([1.0], [1.0], "fp16"), "a and b must have shapes"),
        (([[1.0]], [[1.0]], "fp16", ("int8", "int8", "int8")), "inputs must be one format or a pair"),
    ],
)
def test_bad_operands_are_told_in_one_sentence(arguments: tuple, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        gemm_reference(*arguments)


@given(st.lists(format_values(FP8), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_wide_registers_are_exact(values: list[float], chunk: int) -> None:
    acc = ps.Accumulator("fp32", chunk=chunk)
    small = [v for v in values if abs(v) < 16]  # 12 of them stay below 2^8, in multiples of 2^-16: 24 bits
    assert accumulate(small, [1.0] * len(small), acc) == sum(Fraction(v) for v in small)
