"""What a report says of signal-to-noise ratios, as tables that the terminal and the HTML page both show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from partialsum.accumulators import PRESETS
from partialsum.report.grouping import group_layers
from partialsum.report.phrases import decibels, kept_bits, percent
from partialsum.report.result import Report
from partialsum.report.rows import Row
from partialsum.report.snr_rows import KeptNeed, KeptSummary, UnitSnr, UnitSummary
from partialsum.workloads.gemm import Pass

_LIKELY = 1e-6
"""Probabilities of an overflow from here on are told."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its title and what there is to say of it; ``columns`` are headings, numbers but for the first.

    ``drawn`` names the figure that belongs to it, if any. ``names`` is how many columns are text, from the left.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    names: int = 1
    drawn: str | None = None


def report_sections(report: Report, *, merge: bool = True) -> Iterator[Section]:
    """Yield the sections that were asked for, and those of integer operands; none for a plain analysis."""
    if any(row.integer is not None for row in report.rows):
        yield _integers(report, merge=merge)
    if report.kept is not None:
        yield _kept_headline(report, report.kept)
        yield _kept_layers(report, report.kept, merge=merge)
    if report.units:
        yield _unit_layers(report, merge=merge)
        intervals = _unit_intervals(report)
        if intervals.lines:
            yield intervals


def _integers(report: Report, *, merge: bool) -> Section:
    lines = []
    for names, row in _distinct([row for row in report.rows if row.integer is not None], merge=merge):
        own = row.integer
        assert own is not None
        bits = (own.datatype, own.weights, own.likely)
        lines.append((*names, *("–" if width is None else str(width) for width in bits)))
    return Section(
        "Integer registers (bits in all, sign included)",
        (
            "By type: no values overflow (A2Q, arXiv 2308.13504). By weights: no inputs overflow with this network's "
            "weights, rounded channel by channel; only a module that is given with its weights has them. Likely: "
            "independent sums of normal operands, four standard deviations at the largest code, overflow at most "
            "once in a billion.",
        ),
        (*_NAMES, "by type\nbits", "by weights\nbits", "likely\nbits"),
        tuple(lines),
        names=3,
    )


def _kept_headline(report: Report, kept: KeptSummary) -> Section:
    chunk, criterion = report.settings.chunk, kept.criterion
    lines = []
    for name, own, need in (
        *((str(pass_), report.headline.of(pass_), need) for pass_, need in kept.passes),
        ("one unit for all", report.headline.shared, kept.shared),
    ):
        assert own is not None
        lines.append((name, *_bits(need), str(own.man_bits), str(own.man_bits_chunked)))
    return Section(
        f"Narrowest accumulator that keeps {criterion.target_snr_db:g} dB with {criterion.rounding} rounding "
        f"(mantissa bits), beside the criterion of 2019",
        _conditions(report),
        ("", "plain\nbits", f"chunk {chunk}\nbits", "2019\nplain", f"2019\nchunk {chunk}"),
        tuple(lines),
        drawn="kept",
    )


def _bits(need: KeptNeed) -> tuple[str, str]:
    return kept_bits(need.man_bits), kept_bits(need.man_bits_chunked)


def _conditions(report: Report) -> tuple[str, ...]:
    criterion = report.criterion
    assert criterion is not None
    kind = "independent zero-mean" if criterion.mean == 0 else "independent"
    sentence = (
        f"SNR: variance of the exact sum over the mean squared error of the computed one, for {kind} normal operands "
        f"in these formats."
    )
    if criterion.mean:
        sentence += f" Products have a mean of {criterion.mean:g} of their standard deviations."
    if criterion.kappa != 1:
        sentence += f" Sums are taken to have κ = {criterion.kappa:g} of the variance of independent products."
    if criterion.mean or criterion.kappa != 1:
        return (sentence,)
    return (
        f"{sentence} Sums that cancel, with κ < 1 of the variance of independent products, have 10·log10 κ dB less of "
        f"it (option kappa). Products with a mean lose far more where a unit truncates (option mean).",
    )


def _kept_layers(report: Report, kept: KeptSummary, *, merge: bool) -> Section:
    chunk = report.settings.chunk
    lines = []
    for names, row in _distinct(report.rows, merge=merge):
        own = row.kept
        assert own is not None
        plain = (kept_bits(own.man_bits), decibels(own.snr_db, own.man_bits))
        chunked = (kept_bits(own.man_bits_chunked), decibels(own.snr_db_chunked, own.man_bits_chunked))
        formula = (str(row.man_bits), decibels(own.formula_snr_db, row.man_bits))
        formula_chunked = (str(row.man_bits_chunked), decibels(own.formula_snr_db_chunked, row.man_bits_chunked))
        lines.append((*names, *plain, *chunked, *formula, *formula_chunked))
    return Section(
        f"What each layer needs to keep {kept.criterion.target_snr_db:g} dB, and what the 2019 widths keep",
        (),
        (
            *_NAMES,
            "plain\nbits",
            "SNR\ndB",
            f"chunk {chunk}\nbits",
            "SNR\ndB",
            "2019\nplain",
            "SNR\ndB",
            f"2019\nchunk {chunk}",
            "SNR\ndB",
        ),
        tuple(lines),
        names=3,
    )


_NAMES = ("layer", "layers", "pass", "k")


def _distinct(rows: Sequence[Row], *, merge: bool) -> Iterator[tuple[tuple[str, str, str, str], Row]]:
    """Yield (layer, how many, pass, k) and a row, once for what is alike in all that is shown."""
    for group in group_layers(rows, merge=merge):
        count = f"×{len(group.layers)}" if len(group.layers) > 1 else ""
        shown = set()
        for pass_ in Pass:
            for row in group.rows:
                if row.pass_ is pass_ and _shown(row) not in shown:
                    shown.add(_shown(row))
                    yield (group.name, count, str(pass_), f"{row.k:,}"), row


def _shown(row: Row) -> tuple[object, ...]:
    return row.pass_, row.k, row.kept, row.units, row.integer


def _unit_layers(report: Report, *, merge: bool) -> Section:
    columns = list(_NAMES)
    for unit in report.units:
        columns += [f"{unit.unit.name}\nSNR dB", "\ngain"]
        if unit.unit.means is not None:
            columns.append("promote\nevery" if unit.unit.means == "promotion" else "chunk\nof")
    lines = []
    for names, row in _distinct(report.rows, merge=merge):
        cells = [
            cell for summary, own in zip(report.units, row.units, strict=True) for cell in _unit_cells(summary, own)
        ]
        lines.append((*names, *cells))
    assert report.criterion is not None
    notes = tuple(sentence for position in range(len(report.units)) for sentence in unit_findings(report, position))
    return Section(
        f"What each GEMM keeps on given units, and what keeps {report.criterion.target_snr_db:g} dB",
        (*notes, *_operand_note(report), *_conditions(report)),
        tuple(columns),
        tuple(lines),
        names=3,
        drawn="units",
    )


def _unit_cells(summary: UnitSummary, own: UnitSnr) -> list[str]:
    cells = [decibels(own.snr_db), f"{own.gain:.4f}"]
    if summary.unit.means is not None:
        cells.append("–" if own.meets_target else "none does" if own.interval is None else f"{own.interval:,}")
    return cells


def unit_findings(report: Report, position: int) -> list[str]:
    """Return what the table says of one unit, in sentences that name the GEMM that decides."""
    summary, criterion = report.units[position], report.criterion
    assert criterion is not None
    unit, target = summary.unit, f"{criterion.target_snr_db:g} dB"
    name = unit.name if unit.preset is None else f"{unit.name} ({PRESETS[unit.preset].description})"
    own = [(row, row.units[position]) for row in report.rows]
    told = [(row, snr.snr_db) for row, snr in own if snr.snr_db is not None]
    failing = [(row, snr) for row, snr in own if not snr.meets_target]
    sentences = []
    if not told:
        sentences.append(f"{name}: no GEMM has an error that can be told.")
    elif not failing:
        worst, snr_db = min(told, key=lambda pair: pair[1])
        least = criterion.kappa * 10 ** ((criterion.target_snr_db - snr_db) / 10)
        sentences.append(
            f"{name}: every GEMM keeps {target} as it is; the least, {snr_db:.1f} dB, has {_where(worst)}, "
            f"which does down to κ = {least:.2g}."
        )
    else:
        sentences.append(_failing(name, target, report, failing, unit.means))
    lost = max((snr.overflow_probability for _, snr in own), default=0.0)
    if lost > _LIKELY:
        sentences.append(f"{unit.name}: sums overflow with a probability of up to {lost:.2g}.")
    return sentences


def _failing(
    name: str, target: str, report: Report, failing: Sequence[tuple[Row, UnitSnr]], means: str | None
) -> str:
    share = sum(row.macs for row, _ in failing) / (report.total_macs or 1)
    text = (
        f"{name}: {len(failing)} of {len(report.rows)} GEMMs ({percent(share)} of the MACs) keep less than {target}"
    )
    hopeless = [row for row, snr in failing if snr.interval is None]
    if means is None:
        return f"{text}, first of all {_where(max((row for row, _ in failing), key=lambda row: row.k))}."
    if hopeless:
        cut = "promotion interval" if means == "promotion" else "chunk"
        return f"{text}, and no {cut} helps {_where(max(hopeless, key=lambda row: row.k))}."
    row, snr = min(failing, key=lambda pair: pair[1].interval or 0)
    if means == "chunk":
        return f"{text}; chunks of {snr.interval:,} products keep it everywhere (asked by {_where(row)})."
    return (
        f"{text}; promoting every {snr.interval:,} products keeps it everywhere (asked by {_where(row)}) and adds "
        f"{100 / (snr.interval or 1):.2g}% of float32 additions outside the unit."
    )


def _where(row: Row) -> str:
    return f"{row.layer} {row.pass_}, k = {row.k:,}"


def _operand_note(report: Report) -> tuple[str, ...]:
    from partialsum.report.laws import operands_snr_db

    pairs = {tuple(sorted((row.a_format, row.b_format))) for row in report.rows}
    told = [(pair, operands_snr_db(*pair)) for pair in sorted(pairs)]
    parts = [f"{' × '.join(dict.fromkeys(pair))} {snr:.1f} dB" for pair, snr in told if snr is not None]
    if not parts:
        return ()
    return (
        f"For comparison, rounding normal operands to their formats leaves by itself: {', '.join(parts)} "
        f"(less where values meet the ends of a format's range).",
    )


def _unit_intervals(report: Report) -> Section:
    assert report.criterion is not None
    intervals = sorted({interval for unit in report.units for interval, _ in unit.intervals}, reverse=True)
    longest = max(unit.longest for unit in report.units)
    whole = next(row for row in report.rows if row.k == longest)
    columns, lines = ["promoted every\n(products)", "additions\n%"], [["as given", "0"]]
    lines += [[f"{interval:,}", f"{100 / interval:.2g}"] for interval in intervals]
    for unit, own in zip(report.units, whole.units, strict=True):
        known = {interval: decibels(snr) for interval, snr in unit.intervals}
        columns.append(f"{unit.unit.name}\nSNR dB")
        for line, cell in zip(lines, [decibels(own.snr_db), *(known.get(n, "–") for n in intervals)], strict=True):
            line.append(cell)
        served = _served(report, unit, intervals)
        if served and served[0] != "100%":
            columns.append("MACs\nserved")
            for line, cell in zip(lines, served, strict=True):
                line.append(cell)
    target = f"{report.criterion.target_snr_db:g} dB"
    return Section(
        f"Promoting (or chunking) partial sums every so often: SNR of the longest sum, k = {longest:,}",
        (
            "Additions: what promoting adds outside the unit, in float32, as a share of its multiply-adds. MACs served: "
            f"share of the multiply-adds that keep {target} where the GEMMs that need it promote so often.",
        ),
        tuple(columns),
        tuple(tuple(line) for line in lines) if intervals else (),
    )


def _served(report: Report, unit: UnitSummary, intervals: Sequence[int]) -> list[str]:
    if not unit.shares:
        return []
    position = report.units.index(unit)
    plain = sum(row.macs for row in report.rows if row.units[position].meets_target) / (report.total_macs or 1)
    shares = {interval: share for (interval, _), share in zip(unit.intervals, unit.shares, strict=True)}
    return [percent(plain), *(percent(shares[n]) if n in shares else "–" for n in intervals)]
