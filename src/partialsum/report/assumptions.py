"""What the numbers of a report rest on, in sentences."""

from __future__ import annotations

from partialsum.formats import BlockFormat, parse_format
from partialsum.report.result import Settings

SOURCES = (
    (
        "C. Sakr, N. Wang, C.-Y. Chen, J. Choi, A. Agrawal, N. Shanbhag, K. Gopalakrishnan: Accumulation Bit-Width "
        "Scaling For Ultra-Low Precision Training Of Deep Networks. ICLR 2019",
        "https://arxiv.org/abs/1901.06588",
    ),
    (
        "N. Wang, J. Choi, D. Brand, C.-Y. Chen, K. Gopalakrishnan: Training Deep Neural Networks with 8-bit "
        "Floating Point Numbers. NeurIPS 2018 (accumulation in chunks)",
        "https://arxiv.org/abs/1812.08011",
    ),
)
"""(reference, address) of the papers behind the numbers."""


def state_assumptions(settings: Settings, first_layer: str, last_layer: str) -> tuple[str, ...]:
    """Return the assumptions of an analysis: first how the numbers were made, then what they leave out."""
    return (
        f"Widths are stored mantissa bits (without the hidden bit) of a floating-point accumulator: the fewest "
        f"with v = exp(n (1 - VRR)) < {settings.cutoff:g}, where n is the number of products that are not zero and "
        f"VRR the variance retention ratio of Sakr et al., ICLR 2019, Theorem 1; never fewer than one exact "
        f"product has.",
        f"Chunked: {settings.chunk} products are summed at a time. The sum within a chunk and the sum of the chunk "
        f"results must each meet the criterion with its own length.",
        _describe_operands(settings, first_layer, last_layer),
        f"{settings.density[0].upper()}{settings.density[1:]} (share of products that are not zero; it shortens "
        f"every sum in proportion).",
        *_describe_blocks(settings),
        "The formula describes rounding to nearest. An accumulator that truncates, as many matrix units do, keeps "
        "far less at the same width.",
        "Products are taken as independent, with zero mean and equal variance. Sums that cancel or drift, such as "
        "weight gradients behind a normalisation layer, can need more.",
        "Retained variance is not signal-to-noise ratio: rounding noise that leaves the variance as it was is not "
        "counted as a loss.",
        "Exponent bits are not derived: no sum is taken to overflow or underflow (the paper uses six).",
    )


def _describe_blocks(settings: Settings) -> tuple[str, ...]:
    """Say where the scale of a block format enters the sum, if there is one."""
    names = (settings.inputs, settings.grad_inputs, settings.first_layer_inputs, settings.last_layer_inputs)
    blocks = [name for name in dict.fromkeys(names) if name and isinstance(parse_format(name), BlockFormat)]
    if not blocks:
        return ()
    return (
        f"{' and '.join(blocks)}: a product is (element · scale) · (element · scale), so the scales of the blocks enter "
        f"before the sum. Products are counted with the bits of the elements alone, as if scales were powers of two; a "
        f"scale of NVFP4 has mantissa bits of its own, for which the formula makes no allowance.",
    )


def _describe_operands(settings: Settings, first_layer: str, last_layer: str) -> str:
    text = f"Activations and weights are in {settings.inputs}, gradients in {settings.grad_inputs}"
    if settings.first_layer_inputs is not None:
        text += f", all operands of the first layer ({first_layer}) in {settings.first_layer_inputs}"
    if settings.last_layer_inputs is not None:
        text += f", all operands of the last layer ({last_layer}) in {settings.last_layer_inputs}"
    return text + "; every product enters the sum exactly."
