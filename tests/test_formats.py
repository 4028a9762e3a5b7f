"""Formats against ml_dtypes' constants, and the names' round trip."""

from __future__ import annotations

import ml_dtypes
import pytest

import partialsum as ps

ML_DTYPES = {
    "e5m2": "float8_e5m2",
    "e4m3fn": "float8_e4m3fn",
    "e4m3": "float8_e4m3",
    "e3m4": "float8_e3m4",
    "e5m2fnuz": "float8_e5m2fnuz",
    "e4m3fnuz": "float8_e4m3fnuz",
    "e4m3b11fnuz": "float8_e4m3b11fnuz",
    "e3m2fn": "float6_e3m2fn",
    "e2m3fn": "float6_e2m3fn",
    "e2m1fn": "float4_e2m1fn",
    "bf16": "bfloat16",
}


@pytest.mark.parametrize(("name", "dtype"), ML_DTYPES.items())
def test_range_equals_ml_dtypes(name: str, dtype: str) -> None:
    info = ml_dtypes.finfo(getattr(ml_dtypes, dtype))
    record = ps.parse_format(name)
    assert record.max == float(info.max)
    assert record.smallest_normal == float(info.smallest_normal)
    assert record.smallest_subnormal == float(info.smallest_subnormal)


@pytest.mark.parametrize("name", ps.FORMATS)
def test_name_and_repr_round_trip(name: str) -> None:
    record = ps.parse_format(name)
    assert ps.parse_format(str(record)) == record
    assert eval(repr(record), vars(ps).copy() | {n: getattr(ps, n) for n in ps.__all__}) == record


def test_dlfloat_range_is_that_of_the_patent() -> None:
    record = ps.parse_format("dlfloat16")
    assert record.max == 2.0**33 - 2.0**24
    assert record.smallest_normal == 2.0**-31 * (1 + 2.0**-9)
    assert not record.has_subnormals


@pytest.mark.parametrize("name", ["block16(e2m1fn,e5m2)", "block7(e6m9,e8m11+tensor)", "block5(q2.6,e8m0)"])
def test_block_formats_without_a_name_of_their_own_round_trip(name: str) -> None:
    record = ps.parse_format(name)
    assert str(record) == name
    assert ps.parse_format("block32(e2m1fn,e8m0)") == ps.parse_format("mxfp4")
    assert ps.parse_format("block16(e2m1fn,e4m3fn+tensor)") == ps.parse_format("nvfp4")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e9m2", "exp_bits must be 1 to 8"),
        ("e5m24", "man_bits must be 0 to 23"),
        ("e8m23b200", "float32 carrier"),
        ("block16(e2m1fn,e8m0+tensor)", "tensor_scale needs a scale that is a FloatFormat"),
        ("fp61", "unknown format 'fp61'; did you mean"),
        ("int99", "bits must be 2 to 24"),
        ("q20.20", "integer_bits"),
        ("block0(e2m1fn,e8m0)", "block must be at least 1"),
        ("block8(int8,e8m0)", "the elements of a block format must be float or fixed point, got int8"),
        ("block8(e2m1fn,int8)", "a floating-point format is needed here, got int8"),
    ],
)
def test_bad_format_is_told_in_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.parse_format(name)


@pytest.mark.parametrize(
    ("a", "b", "bits"),
    [("e5m2", None, 5), ("e4m3", "e5m2", 6), ("fp16", None, 21), ("int8", None, 13), ("mxfp4", None, 3)],
)
def test_product_man_bits(a: str, b: str | None, bits: int) -> None:
    assert ps.product_man_bits(a, b) == bits
