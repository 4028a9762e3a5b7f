"""Number formats as data: one frozen record per format, and the registry of their names.

Everything else in the package (rounding, accumulators, theory, cost) takes these records; only this module
turns names into them. Mantissa bits are *stored* bits everywhere: ``e5m2`` is (1, 5, 2), with ``precision`` 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from partialsum.choices import Choice
from partialsum.errors import InputError, did_you_mean

MAX_EXP_BITS = 8
MAX_MAN_BITS = 23
_CARRIER_MIN_EXPONENT = -149  # float32 carries every value, so none may lie below its smallest subnormal
_CARRIER_MAX_EXPONENT = 127


class Specials(Choice):
    """What a float format does with its extreme codes."""

    IEEE = "ieee"
    """The all-ones exponent holds infinities and NaNs (IEEE 754)."""
    FN = "fn"
    """No infinity; only the all-ones code is NaN (OCP e4m3)."""
    FINITE = "finite"
    """Neither infinity nor NaN; every code is a number (OCP fp4 and fp6)."""
    FNUZ = "fnuz"
    """No infinity, no negative zero; the code of -0 is NaN; the default bias is one higher."""
    DLFLOAT = "dlfloat"
    """One merged NaN/infinity at the all-ones code; the lowest binade holds zero and *normal* numbers."""


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating-point format of ``1 + exp_bits + man_bits`` bits.

    ``bias`` defaults to ``2**(exp_bits-1) - 1`` (one more for ``fnuz``). Raises :class:`InputError` where a value
    of the format would not fit the float32 carrier.
    """

    exp_bits: int
    man_bits: int
    bias: int = cast(int, None)  # resolved below, so that readers always see an int
    specials: Specials = Specials.IEEE

    def __post_init__(self) -> None:
        specials = Specials(self.specials)
        object.__setattr__(self, "specials", specials)
        if not 1 <= self.exp_bits <= MAX_EXP_BITS:
            raise InputError(f"exp_bits must be 1 to {MAX_EXP_BITS}, got {self.exp_bits}")
        if not 0 <= self.man_bits <= MAX_MAN_BITS:
            raise InputError(f"man_bits must be 0 to {MAX_MAN_BITS}, got {self.man_bits}")
        if specials is Specials.IEEE and self.exp_bits < 2:
            raise InputError("exp_bits must be at least 2 where the last exponent is infinity or NaN, got 1")
        if self.man_bits == 0 and specials in (Specials.FN, Specials.DLFLOAT):
            raise InputError(f"man_bits must be at least 1 for a {specials} format, got 0")
        if cast("int | None", self.bias) is None:
            default = 2 ** (self.exp_bits - 1) - (specials is not Specials.FNUZ)
            object.__setattr__(self, "bias", default)
        lowest = self.min_exponent - self.man_bits
        if lowest < _CARRIER_MIN_EXPONENT or self.max_exponent > _CARRIER_MAX_EXPONENT:
            raise InputError(
                f"{self} spans 2**{lowest} to 2**{self.max_exponent}, which the float32 carrier "
                f"(2**{_CARRIER_MIN_EXPONENT} to 2**{_CARRIER_MAX_EXPONENT}) cannot hold"
            )

    @property
    def bits(self) -> int:
        """Width of the encoding, sign included."""
        return 1 + self.exp_bits + self.man_bits

    @property
    def precision(self) -> int:
        """Significant bits of a normal number, the hidden one included."""
        return self.man_bits + 1

    @property
    def has_infinity(self) -> bool:
        """Whether the format encodes infinities."""
        return self.specials is Specials.IEEE

    @property
    def has_nan(self) -> bool:
        """Whether the format encodes NaN (DLFloat's merged NaN/infinity reads as NaN)."""
        return self.specials is not Specials.FINITE and not (self.specials is Specials.IEEE and self.man_bits == 0)

    @property
    def has_subnormals(self) -> bool:
        """Whether the lowest binade is a subnormal one."""
        return self.specials is not Specials.DLFLOAT and self.man_bits > 0

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite number."""
        top_code = 2**self.exp_bits - 1
        whole_binade_lost = self.specials is Specials.IEEE
        return int(top_code - whole_binade_lost - self.bias)

    @property
    def min_exponent(self) -> int:
        """Exponent of the lowest binade of normal numbers; subnormals share its quantum."""
        return (0 if self.specials is Specials.DLFLOAT else 1) - self.bias

    @property
    def max(self) -> float:
        """Largest finite value."""
        last_code_lost = self.specials in (Specials.FN, Specials.DLFLOAT)
        significand = 2 ** (self.man_bits + 1) - 1 - last_code_lost
        return float(significand) * 2.0 ** (self.max_exponent - self.man_bits)

    @property
    def smallest_normal(self) -> float:
        """Smallest positive normal value."""
        zero_takes_a_code = self.specials is Specials.DLFLOAT
        return float(2**self.man_bits + zero_takes_a_code) * 2.0 ** (self.min_exponent - self.man_bits)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value; equals :attr:`smallest_normal` where there are no subnormals."""
        if not self.has_subnormals:
            return self.smallest_normal
        return 2.0 ** (self.min_exponent - self.man_bits)

    def __str__(self) -> str:
        registered = _NAMES.get(self)
        if registered is not None:
            return registered
        suffix = "" if self.specials is Specials.IEEE else str(self.specials)
        default_bias = 2 ** (self.exp_bits - 1) - (self.specials is not Specials.FNUZ)
        bias = "" if self.bias in (None, default_bias) else f"b{self.bias}"
        return f"e{self.exp_bits}m{self.man_bits}{suffix}{bias}"


@dataclass(frozen=True, slots=True)
class FixedFormat:
    """Two's-complement fixed point ⟨IL, FL⟩ of ``integer_bits + fraction_bits`` bits (arXiv 1502.02551).

    ``integer_bits`` includes the sign; the range is ``[-2**(IL-1), 2**(IL-1) - 2**-FL]``.
    """

    integer_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if self.bits < 2 or self.bits > MAX_MAN_BITS + 1:
            raise InputError(
                f"integer_bits + fraction_bits must be 2 to {MAX_MAN_BITS + 1} "
                f"(the float32 carrier holds no more), got {self.integer_bits} + {self.fraction_bits}"
            )
        if not -64 <= self.fraction_bits <= 64:
            raise InputError(f"fraction_bits must be -64 to 64, got {self.fraction_bits}")

    @property
    def bits(self) -> int:
        """Width of the encoding, sign included."""
        return self.integer_bits + self.fraction_bits

    @property
    def precision(self) -> int:
        """Significant bits of the largest value."""
        return self.bits - 1

    @property
    def min(self) -> float:
        """Most negative value."""
        return -(2.0 ** (self.integer_bits - 1))

    @property
    def max(self) -> float:
        """Largest value."""
        return 2.0 ** (self.integer_bits - 1) - self.quantum

    @property
    def quantum(self) -> float:
        """Distance between neighbouring values."""
        return 2.0**-self.fraction_bits

    def __str__(self) -> str:
        return f"q{self.integer_bits}.{self.fraction_bits}"


@dataclass(frozen=True, slots=True)
class IntFormat:
    """An integer of ``bits`` bits, two's complement when ``signed``."""

    bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 + self.signed <= self.bits <= MAX_MAN_BITS + 1:
            raise InputError(f"bits must be {1 + self.signed} to {MAX_MAN_BITS + 1}, got {self.bits}")

    @property
    def precision(self) -> int:
        """Significant bits of the largest value."""
        return self.bits - self.signed

    @property
    def min(self) -> float:
        """Most negative value."""
        return -(2.0 ** (self.bits - 1)) if self.signed else 0.0

    @property
    def max(self) -> float:
        """Largest value."""
        return 2.0**self.precision - 1

    @property
    def quantum(self) -> float:
        """Distance between neighbouring values."""
        return 1.0

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Elements that share a scale per block of ``block`` neighbours along the accumulation axis.

    ``scale`` is ``"e8m0"`` (a power of two, OCP MX v1.0) or a :class:`FloatFormat` (NVFP4: e4m3fn);
    ``tensor_scale`` adds one float32 factor per tensor (NVFP4).
    """

    element: FloatFormat | FixedFormat
    block: int
    scale: FloatFormat | str = "e8m0"
    tensor_scale: bool = False

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InputError(f"block must be at least 1, got {self.block}")
        if isinstance(self.scale, str) and self.scale != "e8m0":
            raise InputError(f"scale must be 'e8m0' or a FloatFormat, got {self.scale!r}")
        if self.tensor_scale and isinstance(self.scale, str):
            raise InputError("tensor_scale needs a scale that is a FloatFormat, got 'e8m0'")

    @property
    def bits(self) -> float:
        """Bits per element, its share of the block's scale included."""
        scale_bits = 8 if isinstance(self.scale, str) else self.scale.bits
        return self.element.bits + scale_bits / self.block

    @property
    def precision(self) -> int:
        """Significant bits of an element."""
        return self.element.precision

    def __str__(self) -> str:
        registered = _NAMES.get(self)
        if registered is not None:
            return registered
        tail = "+tensor" if self.tensor_scale else ""
        return f"block{self.block}({self.element},{self.scale}{tail})"


Format = FloatFormat | FixedFormat | IntFormat | BlockFormat

_E4M3FN = FloatFormat(4, 3, specials=Specials.FN)
_E5M2 = FloatFormat(5, 2)
_E2M1FN = FloatFormat(2, 1, specials=Specials.FINITE)
_E2M3FN = FloatFormat(2, 3, specials=Specials.FINITE)
_E3M2FN = FloatFormat(3, 2, specials=Specials.FINITE)

FORMATS: dict[str, Format] = {
    "fp32": FloatFormat(8, 23),
    "tf32": FloatFormat(8, 10),
    "bf16": FloatFormat(8, 7),
    "fp16": FloatFormat(5, 10),
    "dlfloat16": FloatFormat(6, 9, specials=Specials.DLFLOAT),
    "e5m2": _E5M2,
    "e4m3fn": _E4M3FN,
    "e4m3": FloatFormat(4, 3),
    "e3m4": FloatFormat(3, 4),
    "e5m2fnuz": FloatFormat(5, 2, specials=Specials.FNUZ),
    "e4m3fnuz": FloatFormat(4, 3, specials=Specials.FNUZ),
    "e4m3b11fnuz": FloatFormat(4, 3, bias=11, specials=Specials.FNUZ),
    "e3m2fn": _E3M2FN,
    "e2m3fn": _E2M3FN,
    "e2m1fn": _E2M1FN,
    "int8": IntFormat(8),
    "int4": IntFormat(4),
    "int2": IntFormat(2),
    "uint8": IntFormat(8, signed=False),
    "uint4": IntFormat(4, signed=False),
    "q8.8": FixedFormat(8, 8),
    "mxfp8_e4m3": BlockFormat(_E4M3FN, 32),
    "mxfp8_e5m2": BlockFormat(_E5M2, 32),
    "mxfp6_e3m2": BlockFormat(_E3M2FN, 32),
    "mxfp6_e2m3": BlockFormat(_E2M3FN, 32),
    "mxfp4": BlockFormat(_E2M1FN, 32),
    "mxint8": BlockFormat(FixedFormat(2, 6), 32),
    "nvfp4": BlockFormat(_E2M1FN, 16, scale=_E4M3FN, tensor_scale=True),
}
"""The named formats. Any ``eXmY``, ``qI.F``, ``intN`` or ``uintN`` parses as well."""

_NAMES: dict[Format, str] = {record: name for name, record in FORMATS.items()}

_FLOAT_NAME = re.compile(r"e(\d+)m(\d+)(fnuz|fn|dlfloat|finite)?(?:b(-?\d+))?(fnuz)?")
_FIXED_NAME = re.compile(r"q(-?\d+)\.(-?\d+)")
_INT_NAME = re.compile(r"(u?)int(\d+)")
_TUPLE_NAME = re.compile(r"\(?1,(\d+),(\d+)\)?")
_BLOCK_NAME = re.compile(r"block(\d+)\(([^,]+),([^,]+?)(\+tensor)?\)")


def _float_named(match: re.Match[str]) -> FloatFormat:
    family = match[3] or match[5] or "ieee"
    bias = int(match[4]) if match[4] is not None else None
    return FloatFormat(int(match[1]), int(match[2]), bias, Specials(family))  # type: ignore[arg-type]


def _block_named(match: re.Match[str]) -> BlockFormat:
    element = parse_format(match[2])
    if not isinstance(element, FloatFormat | FixedFormat):
        raise InputError(f"the elements of a block format must be float or fixed point, got {element}")
    scale = match[3] if match[3] == "e8m0" else parse_float_format(match[3])
    return BlockFormat(element, int(match[1]), scale, tensor_scale=bool(match[4]))


_PATTERNS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], Format]]] = [
    (_TUPLE_NAME, lambda match: FloatFormat(int(match[1]), int(match[2]))),
    (_FLOAT_NAME, _float_named),
    (_FIXED_NAME, lambda match: FixedFormat(int(match[1]), int(match[2]))),
    (_INT_NAME, lambda match: IntFormat(int(match[2]), signed=not match[1])),
    (_BLOCK_NAME, _block_named),
]


def parse_format(name: str | Format) -> Format:
    """Return the format record of a name; a record is returned as it is.

    ``eXmY`` follows IEEE 754 encodings; ``eXmYfn``, ``…fnuz``, ``…finite`` and ``…dlfloat`` name the families
    of :class:`Specials`, and a trailing ``bN`` sets the exponent bias (``e4m7b10``). ``(1,5,2)``, as the papers
    write it, is ``e5m2``; ``block16(e2m1fn,e4m3fn+tensor)`` is how a block format without a name of its own prints.
    Raises :class:`InputError` for a name that means nothing.
    """
    if isinstance(name, FloatFormat | FixedFormat | IntFormat | BlockFormat):
        return name
    if not isinstance(name, str):
        raise InputError(f"a format must be a name such as 'e5m2' or a format record, got {name!r}")
    key = name.strip().lower().replace(" ", "")
    if key in FORMATS:
        return FORMATS[key]
    for pattern, build in _PATTERNS:
        if match := pattern.fullmatch(key):
            return build(match)
    hint = did_you_mean(key, FORMATS) or "; 'partialsum formats' lists the names, and any eXmY works"
    raise InputError(f"unknown format {name!r}{hint}")


def parse_float_format(name: str | Format) -> FloatFormat:
    """Return the record of a floating-point format; raises :class:`InputError` for any other kind."""
    record = parse_format(name)
    if not isinstance(record, FloatFormat):
        raise InputError(f"a floating-point format is needed here, got {record}")
    return record


def element_format(record: Format) -> FloatFormat | FixedFormat | IntFormat:
    """Return the format of one element: a block format's own element format, anything else as it is."""
    return record.element if isinstance(record, BlockFormat) else record


def product_man_bits(a: str | Format, b: str | Format | None = None) -> int:
    """Return the stored mantissa bits that an exact product of ``a`` and ``b`` (default: ``a``) needs.

    Two significands of p and q bits multiply to p + q bits, of which one is hidden: ``2*man_bits + 1`` for
    two equal float formats. Integers and fixed point count the significant bits of their largest value.
    """
    first = parse_format(a)
    second = first if b is None else parse_format(b)
    return first.precision + second.precision - 1
