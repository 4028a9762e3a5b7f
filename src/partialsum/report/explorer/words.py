"""What the explorer's page says of its own numbers."""

from __future__ import annotations

ASSUMPTIONS = (
    "Every point was computed by partialsum: SNR, gain and VRR of sums as ps.predict has them (rounding, "
    "alignment and promotion followed step by step), the formula's VRR and widths as ps.vrr and ps.min_man_bits "
    "have them (Sakr et al., ICLR 2019, Theorem 1), costs as ps.mac_cost has them. This page only looks up.",
    "Tables hold four lengths to the octave; between them the page is linear in log k. That is within 0.2 dB of "
    "ps.predict for sums of 64 products and more that keep 100 dB or less, and within 0.02 in gain and in VRR up to 3.",
    "A register with products of density d is read at length d·k and chunk d·chunk, the rule of the 2019 paper. "
    "Where at least 64 products are not zero that is within 1 dB of ps.predict(density=d). Units are for "
    "products none of which is zero.",
    "Products are those of two independent standard normals quantised to the formats. Real tensors have means, "
    "outliers and sums that cancel: means make truncating units far worse, cancelling sums have less signal for "
    "the same noise (partialsum predict --mean, --kappa; ps.measure tells what yours have).",
    "Registers have eight exponent bits, so that nothing overflows; every product enters the sum exactly, and "
    "every addition is rounded. Chunks join a total of the same format; promoted sums join a float32 total, "
    "rounded to nearest.",
    "A network's GEMMs are the three of each layer's training step, with the products, density and accumulator "
    "that are chosen above for all of them.",
)

WORDS = (
    ("SNR", "variance of the exact sum over the mean squared error; 30 dB is an error of 3 % of the sum's spread"),
    ("gain", "share of the exact sum that is in the computed one; below 1, results shrink"),
    (
        "VRR",
        "variance of the computed sum over that of the exact one; noise counts as variance, so it says less than SNR",
    ),
    ("k", "accumulation length: the number of products in a sum, zeros included"),
    ("mantissa bits", "stored bits, without the hidden one"),
    ("chunk", "number of products summed before the partial sum joins the total"),
    ("density", "share of products that are not zero"),
    ("GE", "gate equivalents: area in two-input NAND gates"),
)
