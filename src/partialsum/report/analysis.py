"""From a network to the accumulator each of its GEMMs needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partialsum.accumulators import AnyAccumulator, Rounding
from partialsum.errors import InputError
from partialsum.formats import Format, IntFormat, parse_format, product_man_bits
from partialsum.report.assumptions import state_assumptions
from partialsum.report.density import Density, describe_density, gemm_densities
from partialsum.report.result import Report, Settings
from partialsum.report.rows import Row
from partialsum.report.snr_rows import parse_asked
from partialsum.report.summary import find_headline, find_sweep
from partialsum.report.widths import Sum, Widths, solve_widths
from partialsum.theory.solver import WidthMethod
from partialsum.workloads.gemm import Gemm, Role, Workload


def analyze(  # the four that people give most often may be positional
    model_or_name_or_path: Any,
    example_inputs: Any = None,
    batch: int | None = None,
    inputs: str | Format = "e5m2",
    chunk: int = 64,
    density: Density | None = None,
    *,
    seq: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    grad_inputs: str | Format | None = None,
    density_file: str | Path | None = None,
    cutoff: float = 50.0,
    first_layer_inputs: str | Format | None = None,
    last_layer_inputs: str | Format | None = None,
    method: str | WidthMethod = WidthMethod.FORMULA,
    rounding: str | Rounding | None = None,
    target_snr_db: float | None = None,
    kappa: float | None = None,
    mean: float | None = None,
    accumulator: str | AnyAccumulator | Sequence[str | AnyAccumulator] | None = None,
) -> Report:
    """Return the accumulator widths that every GEMM of one training step of a network needs.

    Args:
        model_or_name_or_path: A built-in network (``"resnet18"``), an ``nn.Module``, a Hugging Face
            ``config.json``, an ``.onnx`` file, a table of GEMMs (``.csv``, ``.toml``), or a :class:`Workload`.
        example_inputs: What the module is called with (a tensor, or a tuple or dict of them), for an ``nn.Module``.
        batch: Samples per step; grad_weight sums run over them.
        inputs: Format of activations and weights, and of gradients unless ``grad_inputs`` is given.
        chunk: Number of products summed before the partial result joins the total.
        density: Share of products that are not zero: one number, or one per pass; default 1.
        seq: Sequence length, for language models.
        shapes: Shapes of named inputs, for ONNX files with dynamic axes.
        grad_inputs: Format of gradients.
        density_file: CSV, TOML or JSON file with densities per layer and pass (see ``report/density.py``).
        cutoff: The largest normalised variance lost v that is accepted; 50 in the paper.
        first_layer_inputs: Format of all operands in the GEMMs of the first layer.
        last_layer_inputs: The same for the last layer.
        method: ``"evolution"`` adds the widths that keep ``target_snr_db`` with ``rounding``.
        rounding: Of the register whose width is asked (evolution); nearest_even if None.
        target_snr_db: Signal-to-noise ratio to keep, 30 dB if None.
        kappa: Var(exact sum) over that of independent products, 1 if None; below 1, sums cancel.
        mean: Mean of a (non-zero) product in its standard deviations, 0 if None; then sums drift.
        accumulator: Units on which to predict the SNR of every GEMM, and the promotion interval that keeps the target.

    Raises:
        InputError: The network cannot be found or read, or a number or format is impossible.

    Source: ICLR 2019, arXiv 1901.06588, Theorem 1 and §4.
    """
    _check_numbers(chunk, cutoff)
    asked = parse_asked(method, (rounding, target_snr_db, (kappa, mean)), accumulator, chunk)
    formats = _Formats.parse(inputs, grad_inputs, first_layer_inputs, last_layer_inputs)
    workload = _load(model_or_name_or_path, example_inputs=example_inputs, batch=batch, seq=seq, shapes=shapes)
    if not workload.gemms:
        raise InputError(f"no GEMM was found in {workload.name!r}")
    densities = gemm_densities(workload.gemms, density, density_file)
    settings = formats.settings(chunk, cutoff, describe_density(density, density_file))
    report = _report(workload, formats, settings, densities)
    if formats.integer:
        from partialsum.report.integers import with_integers

        report = with_integers(report, model_or_name_or_path)
    if asked is None:
        return report
    from partialsum.report.extension import extend

    return extend(report, asked)


def _report(workload: Workload, formats: _Formats, settings: Settings, densities: Sequence[float]) -> Report:
    first, last = workload.layers[0], workload.layers[-1]
    operands = [formats.operands(gemm, first, last) for gemm in workload.gemms]
    sums = [
        Sum(gemm.k, product_man_bits(*pair), share)
        for gemm, pair, share in zip(workload.gemms, operands, densities, strict=True)
    ]
    widths = solve_widths(sums, settings.chunk, settings.cutoff)
    solved = [
        (_row(gemm, pair, kind, widths[kind], settings.chunk), widths[kind])
        for gemm, pair, kind in zip(workload.gemms, operands, sums, strict=True)
    ]
    exceptions = [
        name for name, own in ((first, formats.first_layer), (last, formats.last_layer)) if own is not None
    ]
    return Report(
        network=workload.name,
        batch=workload.batch,
        settings=settings,
        rows=tuple(row for row, _ in solved),
        headline=find_headline(solved, exceptions),
        sweep=find_sweep(solved),
        unanalysed=workload.unanalysed,
        assumptions=state_assumptions(settings, first, last),
        notes=workload.notes,
    )


def _check_numbers(chunk: int, cutoff: float) -> None:
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InputError(f"chunk must be a positive integer, got {chunk!r}")
    if isinstance(cutoff, bool) or not isinstance(cutoff, int | float) or not 1 < cutoff < math.inf:
        raise InputError(f"cutoff must be a number above 1, got {cutoff!r}")


def _load(target: Any, **options: Any) -> Workload:
    if isinstance(target, Workload):
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"a Workload is complete in itself; {' and '.join(given)} cannot change it")
        return target
    from partialsum.workloads.load import load_workload

    workload: Workload = load_workload(target, **options)
    return workload


@dataclass(frozen=True, slots=True)
class _Formats:
    """The formats of operands by their role, with the exceptions for the first and the last layer."""

    inputs: Format
    grad_inputs: Format
    first_layer: Format | None
    last_layer: Format | None

    @classmethod
    def parse(
        cls,
        inputs: str | Format,
        grad_inputs: str | Format | None,
        first_layer: str | Format | None,
        last_layer: str | Format | None,
    ) -> _Formats:
        return cls(
            _parse_operand("inputs", inputs),
            _parse_operand("grad_inputs", inputs if grad_inputs is None else grad_inputs),
            None if first_layer is None else _parse_operand("first_layer_inputs", first_layer),
            None if last_layer is None else _parse_operand("last_layer_inputs", last_layer),
        )

    @property
    def integer(self) -> bool:
        """Whether any operand is an integer."""
        return any(
            isinstance(fmt, IntFormat) for fmt in (self.inputs, self.grad_inputs, self.first_layer, self.last_layer)
        )

    def settings(self, chunk: int, cutoff: float, density: str) -> Settings:
        return Settings(
            inputs=str(self.inputs),
            grad_inputs=str(self.grad_inputs),
            first_layer_inputs=None if self.first_layer is None else str(self.first_layer),
            last_layer_inputs=None if self.last_layer is None else str(self.last_layer),
            chunk=chunk,
            cutoff=float(cutoff),
            density=density,
        )

    def operands(self, gemm: Gemm, first: str, last: str) -> tuple[Format, Format]:
        """Return the formats of a and b. A layer that is first and last at once counts as first."""
        if self.first_layer is not None and gemm.layer == first:
            return self.first_layer, self.first_layer
        if self.last_layer is not None and gemm.layer == last:
            return self.last_layer, self.last_layer
        a, b = (self.grad_inputs if role is Role.GRADIENT else self.inputs for role in (gemm.a, gemm.b))
        return a, b


def _parse_operand(argument: str, name: str | Format) -> Format:
    try:
        return parse_format(name)
    except InputError as error:
        raise InputError(f"{argument}: {error}") from None


def _row(gemm: Gemm, operands: tuple[Format, Format], kind: Sum, widths: Widths, chunk: int) -> Row:
    return Row(
        layer=gemm.layer,
        pass_=gemm.pass_,
        kind=gemm.kind,
        m=gemm.m,
        n=gemm.n,
        k=gemm.k,
        count=gemm.count,
        macs=gemm.m * gemm.n * gemm.k * gemm.count if gemm.macs is None else gemm.macs,
        a_format=str(operands[0]),
        b_format=str(operands[1]),
        density=kind.density,
        product_man_bits=kind.product_man_bits,
        man_bits=widths.man_bits,
        ln_v=widths.ln_v,
        chunk=chunk,
        man_bits_chunked=widths.man_bits_chunked,
        ln_v_chunked=widths.ln_v_chunked,
        best_chunk=widths.best_chunk,
        best_man_bits=widths.best_man_bits,
        note=gemm.note,
    )
