"""Accumulators as data: what a multiply-accumulate unit does to its partial sums.

Four kinds: :class:`Accumulator` adds one exact product after another and rounds each time;
:class:`AlignedAccumulator` is the matrix unit that adds a group of aligned products at once, :class:`DotAccumulator` one
that adds them in float32 or exactly; :class:`IntegerAccumulator` wraps or saturates. :data:`ACCUMULATORS` names those
of real hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from partialsum.choices import Choice, parse_choice
from partialsum.errors import InputError, did_you_mean
from partialsum.formats import FloatFormat, Specials, parse_float_format

_FP32 = FloatFormat(8, 23)
_MAX_SUM_BITS = 46
"""Of a matrix unit's group; sums of aligned products stay exact in float64."""

WORD_BITS = 32
"""Width of the random words of stochastic rounding."""


class Rounding(Choice):
    """How a real number becomes a number of a format."""

    NEAREST_EVEN = "nearest_even"
    NEAREST_AWAY = "nearest_away"
    TOWARD_ZERO = "toward_zero"
    DOWN = "down"
    UP = "up"
    STOCHASTIC = "stochastic"


class Overflow(Choice):
    """What happens to a rounded value beyond the largest finite number."""

    INFINITY = "infinity"
    SATURATE = "saturate"


class IntegerOverflow(Choice):
    """What happens to an integer sum beyond the register."""

    WRAP = "wrap"
    SATURATE = "saturate"


def _positive(value: int | None, argument: str) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InputError(f"{argument} must be a positive integer, got {value!r}")


def check_seed(seed: int) -> None:
    """Raise :class:`InputError` unless ``seed`` is an integer of 64 bits."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise InputError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A floating-point register that adds products one at a time, rounding after every addition.

    ``s = round(s + a_i * b_i)`` for i = 0 … k-1 in order. The product is exact (a fused MAC) unless ``product``
    names a format it is rounded to first, with the same rounding. With ``chunk``, every ``chunk`` products are
    summed from +0 and their sum then joins the running total with one more rounding (arXiv 1812.08011 §3).

    ``overflow`` says what happens beyond the largest finite number of ``format`` (a format without infinity
    turns an overflow to NaN under ``infinity``; one that has neither refuses ``infinity``). ``subnormals=False``
    flushes results below the smallest normal number to zero. Stochastic rounding decides with ``random_bits``
    (1 to 32) random bits; None means ``max(23 - man_bits, 12)``. ``seed`` (64 bits) fixes them. Every corner is
    defined in :mod:`partialsum.arithmetic.rounding`.
    """

    format: FloatFormat
    rounding: Rounding = Rounding.NEAREST_EVEN
    chunk: int | None = None
    product: FloatFormat | None = None
    overflow: Overflow = Overflow.INFINITY
    subnormals: bool = True
    random_bits: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", parse_float_format(self.format))
        object.__setattr__(self, "rounding", parse_choice(Rounding, self.rounding, "rounding"))
        object.__setattr__(self, "overflow", parse_choice(Overflow, self.overflow, "overflow"))
        if self.product is not None:
            object.__setattr__(self, "product", parse_float_format(self.product))
        _positive(self.chunk, "chunk")
        _positive(self.random_bits, "random_bits")
        if self.random_bits is not None and self.rounding is not Rounding.STOCHASTIC:
            raise InputError(f"random_bits only means something with stochastic rounding, not {self.rounding}")
        if self.random_bits is not None and self.random_bits > WORD_BITS:
            raise InputError(f"random_bits must be 1 to {WORD_BITS}, got {self.random_bits}")
        check_seed(self.seed)
        for fmt in (self.format, self.product):
            if fmt is not None and self.overflow is Overflow.INFINITY and fmt.specials is Specials.FINITE:
                raise InputError(
                    f"overflow must be 'saturate' for {fmt}, which has neither infinity nor NaN, got 'infinity'"
                )

    @property
    def man_bits(self) -> int:
        """Stored mantissa bits of the register."""
        return self.format.man_bits

    def __str__(self) -> str:
        parts = [str(self.format)]
        if self.rounding is not Rounding.NEAREST_EVEN:
            parts.append(str(self.rounding))
        if self.chunk is not None:
            parts.append(f"chunk={self.chunk}")
        if self.product is not None:
            parts.append(f"product={self.product}")
        if self.overflow is not Overflow.INFINITY:
            parts.append(str(self.overflow))
        if not self.subnormals:
            parts.append("subnormals=no")
        if self.random_bits is not None:
            parts.append(f"random_bits={self.random_bits}")
        if self.seed:
            parts.append(f"seed={self.seed}")
        return ",".join(parts)


@dataclass(frozen=True, slots=True)
class AlignedAccumulator:
    """A matrix unit: ``group`` exact products and the running sum are aligned, cut and added at once.

    Each addend is aligned to the largest exponent of the group (and not below ``min_exponent``), cut to
    ``fraction_bits`` fraction bits by ``alignment`` (``toward_zero`` or ``down``), summed exactly, and the sum
    is rounded once to ``result`` by ``result_rounding``. With ``join_bits`` (CDNA3) the products are added alone
    first; their sum, cut downward to ``join_bits + 1`` fraction bits, then meets the running sum, cut downward to
    ``fraction_bits``; the sum of the two is cut downward to ``join_bits`` bits before it is rounded.
    ``interleave=2`` also sums even and odd products apart before (CDNA3 FP8). ``promote_every`` adds the running
    sum to a float32 total (nearest even) every that many products and starts again from zero (DeepSeek-V3,
    arXiv 2412.19437 §3.3.2). ``dot`` products of block-scaled elements (Blackwell FP4) are summed exactly, times
    their scales, before they are aligned by the exponents of the scales. Every corner is defined in
    :mod:`partialsum.arithmetic.reference_aligned`.
    """

    fraction_bits: int
    group: int
    alignment: Rounding = Rounding.TOWARD_ZERO
    result: FloatFormat = _FP32
    min_exponent: int | None = None
    promote_every: int | None = None
    result_rounding: Rounding = Rounding.TOWARD_ZERO
    interleave: int = 1
    join_bits: int | None = None
    dot: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "alignment", parse_choice(Rounding, self.alignment, "alignment"))
        object.__setattr__(self, "result_rounding", parse_choice(Rounding, self.result_rounding, "result_rounding"))
        object.__setattr__(self, "result", parse_float_format(self.result))
        if self.alignment not in (Rounding.TOWARD_ZERO, Rounding.DOWN):
            raise InputError(f"alignment must be toward_zero or down, got {self.alignment}")
        if self.result_rounding not in (Rounding.TOWARD_ZERO, Rounding.NEAREST_EVEN):
            raise InputError(f"result_rounding must be toward_zero or nearest_even, got {self.result_rounding}")
        _positive(self.group, "group")
        _positive(self.dot, "dot")
        _positive(self.promote_every, "promote_every")
        if not 1 <= self.fraction_bits <= 40:
            raise InputError(f"fraction_bits must be 1 to 40, got {self.fraction_bits}")
        if self.interleave not in (1, 2) or self.group % self.interleave:
            raise InputError(f"interleave must be 1 or 2 and divide group {self.group}, got {self.interleave}")
        if self.result.specials is not Specials.IEEE:
            raise InputError(f"result must be an IEEE format (infinity and subnormals), got {self.result}")
        sum_bits = max(self.fraction_bits, self.join_bits or 0) + (self.group - 1).bit_length()
        if sum_bits > _MAX_SUM_BITS:
            raise InputError(
                f"fraction_bits or join_bits, and the bits of group, must be {_MAX_SUM_BITS} or less together, "
                f"got {sum_bits}"
            )
        if self.join_bits is not None and not self.fraction_bits <= self.join_bits <= 40:
            raise InputError(f"join_bits must be fraction_bits ({self.fraction_bits}) to 40, got {self.join_bits}")
        if self.interleave != 1 and self.join_bits is None:
            raise InputError("interleave needs join_bits: products summed apart meet before the running sum")
        if self.promote_every is not None and self.promote_every % self.group:
            raise InputError(f"promote_every must be a multiple of group {self.group}, got {self.promote_every}")

        if self.dot > 1 and (self.join_bits is not None or self.group % self.dot):
            raise InputError(f"dot must divide group {self.group} and stand without join_bits, got {self.dot}")

    def __str__(self) -> str:
        name = _ACCUMULATOR_NAMES.get(self)
        if name is not None:
            return name
        if self.promote_every is not None:
            plain = _ACCUMULATOR_NAMES.get(replace(self, promote_every=None))
            if plain is not None:
                return f"{plain},promote_every={self.promote_every}"
        parts = ["aligned", f"fraction_bits={self.fraction_bits}", f"group={self.group}"]
        for key in (
            "alignment",
            "result",
            "min_exponent",
            "promote_every",
            "result_rounding",
            "interleave",
            "join_bits",
            "dot",
        ):
            value = getattr(self, key)
            if value != _ALIGNED_DEFAULTS[key]:
                parts.append(f"{key}={value}")
        return ",".join(parts)


_ALIGNED_DEFAULTS = {f.name: f.default for f in fields(AlignedAccumulator)}


@dataclass(frozen=True, slots=True)
class DotAccumulator:
    """A matrix unit that aligns nothing: float32 additions to nearest even, ``group`` products at a time.

    The products, rounded to float32, of a group are added in pairs, the pairs' sums in pairs, and the whole joins the
    running sum; with ``exact`` the products are not rounded, and a group and the running sum are added as one number,
    which is rounded once. ``subnormals=False`` flushes operands, products and sums below the smallest normal number of
    their formats to zero. Every corner is defined in :mod:`partialsum.arithmetic.reference_dots`.
    """

    group: int
    exact: bool = False
    subnormals: bool = True

    def __post_init__(self) -> None:
        if self.group not in (1, 2, 4, 8, 16):
            raise InputError(f"group must be 1, 2, 4, 8 or 16, got {self.group!r}")
        if self.exact and not self.subnormals:
            raise InputError("subnormals must be kept where sums are exact, got subnormals=False with exact=True")

    def __str__(self) -> str:
        name = _ACCUMULATOR_NAMES.get(self)
        if name is not None:
            return name
        options = ("exact=yes" if self.exact else "", "" if self.subnormals else "subnormals=no")
        return ",".join(["dot", f"group={self.group}", *(option for option in options if option)])


@dataclass(frozen=True, slots=True)
class IntegerAccumulator:
    """A two's-complement register of ``bits`` bits that wraps or saturates after every addition."""

    bits: int
    overflow: IntegerOverflow = IntegerOverflow.WRAP

    def __post_init__(self) -> None:
        object.__setattr__(self, "overflow", parse_choice(IntegerOverflow, self.overflow, "overflow"))
        if not 2 <= self.bits <= 64:
            raise InputError(f"bits must be 2 to 64, got {self.bits}")

    def __str__(self) -> str:
        return f"int{self.bits}" + ("" if self.overflow is IntegerOverflow.WRAP else ",saturate")


AnyAccumulator = Accumulator | AlignedAccumulator | DotAccumulator | IntegerAccumulator


@dataclass(frozen=True, slots=True)
class Preset:
    """An accumulator of real hardware or of a published recipe, with where the facts come from."""

    accumulator: AnyAccumulator
    description: str
    source: str


_NVIDIA = "arXiv 2511.10909 and 2512.07004 (two independent bit-accurate models)"
_E8M13 = FloatFormat(8, 13)


def _nvidia(unit: str, fraction_bits: int, group: int, floor: int | None, *, narrow: bool = False) -> Preset:
    result = _E8M13 if narrow else _FP32
    accumulator = AlignedAccumulator(fraction_bits, group, result=result, min_exponent=floor)
    return Preset(accumulator, f"{unit} tensor core, FP32 output", _NVIDIA)


def _amd(unit: str, group: int, interleave: int) -> Preset:
    accumulator = AlignedAccumulator(
        24,
        group,
        min_exponent=-126,  # a zero running sum takes part with the exponent of a float32 subnormal
        result_rounding=Rounding.NEAREST_EVEN,
        interleave=interleave,
        join_bits=31,
    )
    return Preset(accumulator, f"{unit} matrix core, FP32 output", "arXiv 2511.10909")


def _old_amd(unit: str, accumulator: DotAccumulator) -> Preset:
    return Preset(accumulator, f"{unit} matrix core, FP32 output", "arXiv 2511.10909 (MMA-Sim 2.1.1)")


PRESETS: dict[str, Preset] = {
    "v100-fp16": _nvidia("V100 FP16", 23, 4, None),
    "a100-fp16": _nvidia("A100 FP16", 24, 8, -132),
    "a100-bf16": _nvidia("A100 BF16", 24, 8, -132),
    "a100-tf32": _nvidia("A100 TF32", 24, 4, -132),
    "ada-fp16": _nvidia("Ada (L40S, RTX 4090) FP16", 24, 8, -132),
    "ada-bf16": _nvidia("Ada (L40S, RTX 4090) BF16", 24, 8, -132),
    "ada-tf32": _nvidia("Ada (L40S, RTX 4090) TF32", 24, 4, -132),
    "ada-fp8": _nvidia("Ada (L40S, RTX 4090) FP8", 13, 16, -132, narrow=True),
    "h100-fp16": _nvidia("H100/H200 FP16", 25, 16, -133),
    "h100-bf16": _nvidia("H100/H200 BF16", 25, 16, -133),
    "h100-tf32": _nvidia("H100/H200 TF32", 25, 8, -133),
    "h100-fp8": _nvidia("H100/H200 FP8 (wgmma)", 13, 32, -133, narrow=True),
    "b200-fp16": _nvidia("B200/RTX PRO 6000 FP16", 25, 16, -133),
    "b200-bf16": _nvidia("B200/RTX PRO 6000 BF16", 25, 16, -133),
    "b200-tf32": _nvidia("B200/RTX PRO 6000 TF32", 25, 8, -133),
    "b200-fp8": _nvidia("B200/RTX PRO 6000 FP8", 25, 32, -133),
    "b200-fp4": Preset(
        AlignedAccumulator(35, 64, min_exponent=-139, dot=16),
        "B200/RTX PRO 6000 MXFP4 and NVFP4 tensor core, FP32 output",
        "arXiv 2511.10909",
    ),
    "mi100-fp16": _old_amd("MI100 (CDNA1) FP16", DotAccumulator(4, exact=True)),
    "mi100-bf16": _old_amd("MI100 (CDNA1) BF16", DotAccumulator(2, exact=True)),
    "mi250-fp16": _old_amd("MI250 (CDNA2) FP16", DotAccumulator(4, subnormals=False)),
    "mi250-bf16": _old_amd("MI250 (CDNA2) BF16 (_1k)", DotAccumulator(4, subnormals=False)),
    "mi300-fp16": _amd("MI300 (CDNA3) FP16", 8, 1),
    "mi300-bf16": _amd("MI300 (CDNA3) BF16", 8, 1),
    "mi300-tf32": _amd("MI300 (CDNA3) XF32", 4, 1),
    "mi300-fp8": _amd("MI300 (CDNA3) FP8", 16, 2),
    "fp16-2018": Preset(
        Accumulator(FloatFormat(6, 9), chunk=64),
        "FP16 (1,6,9) chunked by 64, for FP8 (1,5,2) training",
        "arXiv 1812.08011 §3",
    ),
    "lba12-2024": Preset(
        Accumulator(
            FloatFormat(4, 7, bias=10),
            rounding=Rounding.TOWARD_ZERO,  # "floor" cuts mantissa bits of a sign-magnitude number
            chunk=16,
            product=FloatFormat(4, 7, bias=12),
            overflow=Overflow.SATURATE,
            subnormals=False,
        ),
        "12-bit (1,4,7) accumulator, mantissas of product and sum cut (toward zero), chunk 16",
        "arXiv 2401.14110",
    ),
}
"""The accumulators of real hardware and published recipes, each with its source."""

ACCUMULATORS: dict[str, AnyAccumulator] = {name: preset.accumulator for name, preset in PRESETS.items()}
"""Name → accumulator; the names are accepted wherever an accumulator is."""

_ACCUMULATOR_NAMES: dict[AnyAccumulator, str] = {}
for _name, _accumulator in ACCUMULATORS.items():
    _ACCUMULATOR_NAMES.setdefault(_accumulator, _name)

_INTEGER_NAME = re.compile(r"int(\d+)")
_KEYED = {
    **dict.fromkeys(("chunk", "random_bits", "seed", "promote_every"), int),
    **dict.fromkeys(("fraction_bits", "group", "min_exponent", "interleave", "join_bits", "dot"), int),
    **dict.fromkeys(("product", "result", "alignment", "result_rounding"), str),
}
_GROUPED: dict[str, tuple[type[AnyAccumulator], set[str]]] = {
    "aligned": (AlignedAccumulator, {"fraction_bits", "group"}),
    "dot": (DotAccumulator, {"group"}),
}
_TRUTHS = ("subnormals", "exact")
_TRUTH = {"yes": True, "no": False, "true": True, "false": False}


def parse_accumulator(name: str | AnyAccumulator | FloatFormat) -> AnyAccumulator:
    """Return the accumulator that ``name`` describes; a record is returned as it is.

    Accepted: a preset (``h100-fp8``), a format (``e6m9``), ``int32``, each with options behind commas:
    ``"e6m9,chunk=64,toward_zero,saturate,subnormals=no"``, ``"h100-fp8,promote_every=128"``, ``"int20,saturate"``,
    ``"aligned,fraction_bits=13,group=8,result=e8m13"``, ``"dot,group=4,exact=yes"``.
    Raises :class:`InputError` for anything else.
    """
    if isinstance(name, AnyAccumulator):
        return name
    if isinstance(name, FloatFormat):
        return Accumulator(name)
    if not isinstance(name, str):
        raise InputError(f"an accumulator must be a name such as 'e6m9,chunk=64' or a record, got {name!r}")
    head, *options = (part.strip().lower() for part in name.split(","))
    settings = dict(_parse_option(option, name) for option in options)
    if match := _INTEGER_NAME.fullmatch(head):
        return _build(IntegerAccumulator, {"bits": int(match[1])}, settings, name)
    if head in ACCUMULATORS:
        preset = ACCUMULATORS[head]
        fields = {field: getattr(preset, field) for field in preset.__dataclass_fields__}
        return _build(type(preset), fields, settings, name)
    if head in _GROUPED:
        kind, needed = _GROUPED[head]
        if missing := needed - settings.keys():
            raise InputError(f"the accumulator {head!r} needs {' and '.join(sorted(missing))}, got {name!r}")
        return _build(kind, {}, settings, name)
    if not re.match(r"e\d|fp|bf|tf|dlfloat", head):
        hint = did_you_mean(head, [*ACCUMULATORS, *_GROUPED])
        raise InputError(f"unknown accumulator {name!r}{hint}")
    return _build(Accumulator, {"format": parse_float_format(head)}, settings, name)


def _parse_option(option: str, whole: str) -> tuple[str, object]:
    key, equals, value = option.partition("=")
    if not equals:
        if key in set(Rounding):
            return "rounding", key
        if key in {*Overflow, *IntegerOverflow}:
            return "overflow", key
        hint = did_you_mean(key, [*Rounding, *Overflow, "chunk=64"])
        raise InputError(f"unknown option {option!r} in accumulator {whole!r}{hint}")
    try:
        if key in _TRUTHS:
            return key, _TRUTH[value]
        return key, _KEYED[key](value)
    except (KeyError, ValueError):
        hint = did_you_mean(key, [*_KEYED, *_TRUTHS])
        raise InputError(f"cannot read option {option!r} in accumulator {whole!r}{hint}") from None


def _build(
    kind: type[AnyAccumulator], fields: dict[str, object], settings: dict[str, object], whole: str
) -> AnyAccumulator:
    for key in settings:
        if key not in kind.__dataclass_fields__:
            raise InputError(f"{key} does not apply to the {kind.__name__} in {whole!r}")
    return kind(**{**fields, **settings})  # type: ignore[arg-type]
