"""What a measurement found, GEMM by GEMM, and the widths that follow from it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partialsum.accumulators import Accumulator, AnyAccumulator, Rounding
from partialsum.choices import parse_choice
from partialsum.emulation.policy import LayerRule, Policy
from partialsum.errors import InputError
from partialsum.files import write_atomically
from partialsum.formats import FloatFormat
from partialsum.measurement.gauge import Gauge
from partialsum.measurement.moments import Estimate, Quality, qualities, variances
from partialsum.measurement.pieces import PiecewiseLaw
from partialsum.measurement.targets import Target, parse_target
from partialsum.measurement.tensors import TensorStats
from partialsum.workloads.gemm import Pass

SCHEMA = "partialsum/measurements/1"
_FINEST = 7
"""Mantissa bits of operands beyond which sums no longer depend on them."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One GEMM of one pass, as real tensors have it: the size it mostly had, ``[m, k] @ [k, n]``, ``count`` of them.

    Attributes:
        calls, observed, samples: Calls counted, calls looked at, sums looked at per accumulator.
        a, b, products: Statistics of the operands before, and of the products after, they are brought to the inputs'
            format. The products' exponents are bounds, of the smallest and largest factors.
        operand_man_bits: Mantissa bits that the quantised operands use.
        kappa, kappa_margin: Var(exact sum) / (k·Var(product)); 1 for independent products, less where they cancel.
            The margin is the half width of the 95% interval that the exact sums' variance leaves.
        cancellation: Mean ``Σ|p|`` over mean ``|Σp|``.
        path: Root mean square of partial sums over that of independent products of the same power.
        order: The same over that of the very products added in random order.
        sum_exp_bits: Exponent bits that hold the smallest product and the largest partial sum as normal numbers.
        qualities: What each accumulator keeps, in the measurement's order of accumulators.
        shuffled: What accumulator ``reference`` keeps of the same operands paired at random.
        pieces: Some of the sums, piece by piece: a product law that ``predict`` takes. None where none were kept.
    """

    layer: str
    pass_: Pass
    m: int
    n: int
    k: int
    count: int
    calls: int
    observed: int
    samples: int
    a: TensorStats
    b: TensorStats
    products: TensorStats
    operand_man_bits: tuple[int, int]
    kappa: float
    kappa_margin: float
    cancellation: float
    path: float
    order: float
    sum_exp_bits: int
    qualities: tuple[Quality, ...]
    shuffled: Quality
    reference: int
    pieces: PiecewiseLaw | None = None

    @property
    def density(self) -> float:
        """Share of products that are not zero."""
        return self.products.density

    @property
    def product_man_bits(self) -> int:
        """Mantissa bits that an exact product of the quantised operands needs."""
        return sum(self.operand_man_bits) + 1

    @property
    def normal_product(self) -> str:
        """Name of the product of two normals with as many mantissa bits as the operands use, as ``predict`` reads it."""
        return "*".join(f"e8m{min(_FINEST, bits)}" for bits in self.operand_man_bits)

    @property
    def dependence_db(self) -> float:
        """SNR that real products have over the same operands paired at random, with the reference accumulator."""
        return self.qualities[self.reference].snr_db.value - self.shuffled.snr_db.value

    def inputs(self) -> dict[str, Any]:
        """Return what ``predict`` can know of these sums: ``ps.predict(row.k, accumulator, **row.inputs())``.

        Their pieces, or, where those were not kept, normals of as many mantissa bits, density and ``kappa``.
        """
        if self.pieces is not None:
            return {"product": self.pieces}
        return {"product": self.normal_product, "density": self.density, "kappa": self.kappa}

    @property
    def name(self) -> str:
        """Layer and pass."""
        return f"{self.layer} {self.pass_.value}"


@dataclass(frozen=True, slots=True)
class Narrowest:
    """The narrowest accumulator that meets a target: None where none of the sweep does.

    ``low`` and ``high``: the narrowest that the confidence intervals do not rule out, and the narrowest from which on
    they leave no doubt.
    """

    man_bits: int | None
    low: int | None
    high: int | None

    @property
    def certain(self) -> bool:
        """Whether the confidence intervals leave one width only."""
        return self.low == self.high

    def __str__(self) -> str:
        name = "–" if self.man_bits is None else str(self.man_bits)
        if self.certain:
            return name
        return f"{name} (≥{self.low})" if self.high is None else f"{name} ({self.low}–{self.high})"


@dataclass(frozen=True)
class Measurements:
    """Everything that :func:`measure` found. ``rows`` are in the order in which the GEMMs first ran."""

    network: str
    batches: int
    accumulators: tuple[AnyAccumulator, ...]
    rows: tuple[Measurement, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def row(self, layer: str, pass_: Pass | str = Pass.FORWARD) -> Measurement:
        """Return the GEMM of a layer and pass; raises :class:`InputError` where there is none."""
        wanted = parse_choice(Pass, pass_, "pass_")
        for row in self.rows:
            if (row.layer, row.pass_) == (layer, wanted):
                return row
        raise InputError(f"no GEMM was measured of layer {layer!r} and pass {wanted.value!r}")

    def widths(self, rounding: str | Rounding = Rounding.NEAREST_EVEN, chunk: int | None = None) -> dict[int, int]:
        """Return man_bits → index of the accumulators of one rounding and chunk, from narrow to wide."""
        mode = parse_choice(Rounding, rounding, "rounding")
        found = {
            accumulator.man_bits: index
            for index, accumulator in enumerate(self.accumulators)
            if isinstance(accumulator, Accumulator)
            and accumulator.rounding is mode
            and accumulator.chunk == (chunk or None)
        }
        if not found:
            how = f"in chunks of {chunk}" if chunk else "plainly"
            raise InputError(f"no accumulator was measured that rounds {mode.value} and adds {how}")
        return dict(sorted(found.items()))

    def narrowest(
        self,
        row: Measurement,
        target: str | Target = "snr=20",
        rounding: str | Rounding = Rounding.NEAREST_EVEN,
        chunk: int | None = None,
    ) -> Narrowest:
        """Return the narrowest accumulator from which on all wider ones meet ``target`` too.

        Targets: ``"snr=20"`` (dB at least), ``"vrr=0.99"`` (at least), ``"v=50"`` (normalised variance lost below, as
        the formula's criterion, with the measured variance).
        """
        goal = parse_target(target)
        found: list[int | None] = [None, None, None]
        going = [True, True, True]
        for bits, index in reversed(self.widths(rounding, chunk).items()):
            verdict = goal.judge(row.qualities[index], row.k * row.density)
            going = [so_far and now for so_far, now in zip(going, verdict, strict=True)]
            found = [bits if now else best for now, best in zip(going, found, strict=True)]
        return Narrowest(*found)

    def swamped(
        self, man_bits: int, rounding: str | Rounding = Rounding.NEAREST_EVEN, chunk: int | None = None
    ) -> list[tuple[Measurement, Estimate]]:
        """Return every GEMM and its SNR in dB with one accumulator, the worst first: which layers swamp first."""
        widths = self.widths(rounding, chunk)
        if man_bits not in widths:
            raise InputError(f"man_bits must be one of {', '.join(map(str, widths))}, got {man_bits!r}")
        pairs = [(row, row.qualities[widths[man_bits]].snr_db) for row in self.rows]
        return sorted(pairs, key=lambda pair: pair[1].value if math.isfinite(pair[1].value) else math.inf)

    def policy(
        self,
        target: str | Target = "snr=20",
        rounding: str | Rounding = Rounding.NEAREST_EVEN,
        chunk: int | None = None,
        perturbation: int = 0,
    ) -> Policy:
        """Return the policy that gives every layer and pass the narrowest accumulator that met ``target``.

        Where none of the sweep did, the widest is taken. Inputs are those the measurement was made with.
        """
        widest = max(self.widths(rounding, chunk))
        mode = parse_choice(Rounding, rounding, "rounding")
        exp_bits = next(a.format.exp_bits for a in self.accumulators if isinstance(a, Accumulator))

        def accumulator(bits: int | None) -> Accumulator:
            width = max(1, (widest if bits is None else bits) + perturbation)
            return Accumulator(FloatFormat(exp_bits, width), mode, chunk=chunk or None)

        rules: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            found = self.narrowest(row, target, mode, chunk)
            rules.setdefault(row.layer, {})[row.pass_.value] = accumulator(found.man_bits)
        layers = tuple((layer, LayerRule(**of_layer)) for layer, of_layer in rules.items())
        default = accumulator(None)
        source = self.settings.get("policy")
        inputs = self.settings.get("inputs") if source is None else Policy.from_toml(source).inputs
        return Policy(default, default, default, inputs, layers=layers, name="measured")

    def density_csv(self) -> str:
        """Return a density file: what ``analyze(density_file=…)`` reads."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["layer", "pass", "density"])
        for row in self.rows:
            if row.density > 0:
                writer.writerow([row.layer, row.pass_.value, repr(row.density)])
        return buffer.getvalue()

    def write_density(self, path: str | Path) -> None:
        """Write :meth:`density_csv` to a ``.csv`` file."""
        if Path(path).suffix.lower() != ".csv":
            raise InputError(f"path of a density file must end in .csv, got {str(path)!r}")
        write_atomically(path, self.density_csv())

    def to_dict(self, *, pieces: bool = False) -> dict[str, Any]:
        """Return the document that :meth:`to_json` writes."""
        from partialsum.measurement.document import document

        return document(self, pieces=pieces)

    def to_json(self, indent: int | None = 2, *, pieces: bool = False) -> str:
        """Return everything as JSON; the sums' ``pieces``, which may be large, only if asked for.

        ``PiecewiseLaw.from_dict`` reads them back.
        """
        return json.dumps(self.to_dict(pieces=pieces), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_csv(self) -> str:
        """Return one CSV line per GEMM and accumulator."""
        from partialsum.measurement.document import table

        return table(self)

    def to_html(self, *, target: str | Target = "snr=20", command: str | None = None) -> str:
        """Return the page of the measurement: one self-contained HTML file."""
        from partialsum.report.measured import render_measurements

        return render_measurements(self, target=parse_target(target), command=command)


def summarise(
    network: str,
    batches: int,
    accumulators: Sequence[AnyAccumulator],
    gauges: Mapping[tuple[str, Pass], Gauge],
    settings: Mapping[str, Any],
) -> Measurements:
    """Return what the gauges learnt."""
    parts = list(gauges.values())
    own = [gauge.pairs for gauge in parts]
    found = zip(qualities(own), variances(own), qualities([gauge.shuffled for gauge in parts]), strict=True)
    rows = tuple(
        _row(layer, pass_, gauge, kept, variance, shuffled[0])
        for ((layer, pass_), gauge), (kept, variance, shuffled) in zip(gauges.items(), found, strict=True)
    )
    return Measurements(network, batches, tuple(accumulators), rows, dict(settings))


def _row(
    layer: str, pass_: Pass, gauge: Gauge, kept: tuple[Quality, ...], variance: Estimate, shuffled: Quality
) -> Measurement:
    size = max(gauge.sizes, key=gauge.sizes.__getitem__)
    products, walks = gauge.products.stats(), gauge.walks
    noise = size.k * gauge.products.variance
    exponents = products.exponents
    return Measurement(
        layer=layer,
        pass_=pass_,
        m=size.m,
        n=size.n,
        k=size.k,
        count=size.count,
        calls=gauge.seen,
        observed=gauge.observed,
        samples=gauge.pairs.count,
        a=gauge.operands[0].stats(),
        b=gauge.operands[1].stats(),
        products=products,
        operand_man_bits=(gauge.man_bits[0], gauge.man_bits[1]),
        kappa=variance.value / noise if noise else math.nan,
        kappa_margin=variance.margin / noise if noise else math.nan,
        cancellation=walks.cancellation,
        path=walks.path,
        order=walks.order,
        sum_exp_bits=1 if exponents is None else _span_bits(exponents[0], walks.largest),
        qualities=kept,
        shuffled=shuffled,
        reference=gauge.reference,
        pieces=gauge.pieces.law(f"{layer} {pass_.value}") if gauge.pieces.k == size.k else None,
    )


def _span_bits(lowest: int, largest: float) -> int:
    highest = math.frexp(largest)[1] - 1 if largest else lowest
    return max(1, (max(highest, lowest) - lowest + 2).bit_length())
