"""The recipes of this line of work, each a function of the few things its paper varies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from partialsum.accumulators import Rounding
from partialsum.choices import parse_choice
from partialsum.emulation.policy import LayerRule, Policy
from partialsum.emulation.training import IntegerLayers, LossScaling, Recipe, WeightUpdate
from partialsum.emulation.widths import policy_from
from partialsum.errors import InputError, did_you_mean
from partialsum.formats import parse_format

_FP16_2018 = "e6m9"


def fp32() -> Recipe:
    """Float32 throughout, every sum accumulated in order: the baseline of the emulation itself."""
    return Recipe("fp32", "float32 inputs and accumulators", "baseline", Policy(name="fp32"))


def bf16() -> Recipe:
    """bfloat16 inputs with float32 accumulators and float32 weights: today's mixed-precision baseline."""
    return Recipe("bf16", "bfloat16 inputs, float32 accumulators", "baseline", Policy(inputs="bf16", name="bf16"))


def accumulation_2019(
    report: Any = None, *, chunked: bool = True, perturbation: int = 0, rounding: str = "nearest_even"
) -> Recipe:
    """Sakr et al., ICLR 2019 (arXiv 1901.06588), the training experiments: accumulators of predicted widths.

    Inputs are (1,5,2); each layer and GEMM has a (1,6,m) accumulator; the last layer has 16-bit inputs and
    accumulators; the loss scale is 1000.

    Args:
        report: The analysis of the network (``ps.analyze``).
        chunked: Take the chunked widths and chunk, else the plain ones.
        perturbation: The paper's PP, bits added to every width.
        rounding: Rounding of the accumulators.
    """
    if report is None:
        raise InputError(
            "recipe 'accumulation-2019' takes its widths from an analysis: pass report=ps.analyze(model, inputs)"
        )
    policy = policy_from(report, chunked=chunked, perturbation=perturbation, rounding=rounding)
    last = report.rows[-1].layer
    wide = LayerRule(_FP16_2018, _FP16_2018, _FP16_2018, inputs=_FP16_2018)
    layers = {**dict(policy.layers), last: wide}
    kind = f"chunk {policy.chunk}" if policy.chunk else "plain"
    return Recipe(
        "accumulation-2019",
        f"FP8 (1,5,2) inputs, (1,6,m) accumulators of the predicted widths{perturbation:+d}, {kind}",
        "arXiv 1901.06588, training experiments",
        Policy(
            policy.forward,
            policy.grad_input,
            policy.grad_weight,
            policy.inputs,
            layers=layers,
            chunk=policy.chunk,
            name="accumulation-2019",
        ),
        scaling=LossScaling(1000.0),
    )


def fp8_2018(*, chunk: int | None = 64, update_rounding: str = "stochastic") -> Recipe:
    """Wang et al., NeurIPS 2018 (arXiv 1812.08011), the training scheme: FP8, chunked FP16 accumulation.

    FP8 (1,5,2) GEMMs accumulate in FP16 (1,6,9), chunk 64; weights are FP16 with stochastically rounded updates;
    the first layer's input and the last layer are FP16; the loss scale is 1000. ``chunk=None`` and
    ``update_rounding="nearest_even"`` are the paper's ablations.
    """
    image = LayerRule(inputs={"activation": _FP16_2018})
    last = LayerRule(inputs=_FP16_2018)
    policy = Policy(
        _FP16_2018,
        _FP16_2018,
        _FP16_2018,
        "e5m2",
        first=image,
        last=last,
        chunk=chunk,
        name="fp8-2018",
    )
    fp16 = parse_format(_FP16_2018)
    update = WeightUpdate(fp16, parse_choice(Rounding, update_rounding, "update_rounding"), fp16)
    return Recipe(
        "fp8-2018",
        "FP8 (1,5,2) GEMMs, FP16 (1,6,9) accumulation in chunks, FP16 weights",
        "arXiv 1812.08011, training scheme",
        policy,
        update,
        LossScaling(1000.0),
    )


def fixed16_2015(
    *,
    rounding: str = "stochastic",
    activation: str = "q6.10",
    weight: str = "q2.14",
    gradient: str = "q2.14",
) -> Recipe:
    """Gupta et al., ICML 2015 (arXiv 1502.02551): 16-bit fixed point ⟨IL, FL⟩, stochastic or nearest.

    Products are summed wide (here: in float32) and rounded once, at the end; so are updated weights. The optimizer's
    own state stays in float32: the squares that Adam keeps are far below what 16-bit fixed point resolves.
    """
    mode = parse_choice(Rounding, rounding, "rounding")
    formats = {"activation": f"{activation},{mode}", "weight": f"{weight},{mode}", "gradient": f"{gradient},{mode}"}
    outputs = {
        "forward": formats["activation"],
        "grad_input": formats["gradient"],
        "grad_weight": formats["gradient"],
    }
    return Recipe(
        "fixed16-2015",
        f"16-bit fixed point, {mode} rounding",
        "arXiv 1502.02551, limited-precision arithmetic",
        Policy(inputs=formats, outputs=outputs, name="fixed16-2015"),
        WeightUpdate(parse_format(weight), mode),
    )


def int2_2019(
    *, bits: int = 2, weight_bits: int | None = None, keep: tuple[str, ...] = ("*downsample*", "*shortcut*")
) -> Recipe:
    """Choi et al., SysML 2019: PACT activations with a learned clip, SAWB weights, integer forward GEMMs.

    2 to 8 bits; SAWB is published for 2, 3, 4, 5 and 8. The first and last layer, shortcuts (``keep``) and all
    gradients stay in high precision. Applied without an optimizer it serves inference.
    """
    integers = IntegerLayers(bits, bits if weight_bits is None else weight_bits, keep=tuple(keep))
    integers.rule(signed=True)  # refuses bit widths that PACT or SAWB do not have
    return Recipe(
        "int2-2019",
        f"PACT {bits}-bit activations, SAWB {integers.weight_bits}-bit weights, integer forward GEMMs",
        "Choi et al., SysML 2019",
        Policy(name="int2-2019"),
        integers=integers,
    )


def hfp8_2019(*, chunk: int | None = 64) -> Recipe:
    """Sun et al., NeurIPS 2019: hybrid FP8, (1,4,3) for activations and weights, (1,5,2) for gradients.

    FP16 (1,6,9) accumulation in chunks, FP16 weights with stochastically rounded updates, dynamic loss scale.
    """
    image = LayerRule(inputs={"activation": _FP16_2018})
    last = LayerRule(inputs=_FP16_2018)
    roles = {"activation": "e4m3", "weight": "e4m3", "gradient": "e5m2"}
    policy = Policy(
        _FP16_2018,
        _FP16_2018,
        _FP16_2018,
        roles,
        first=image,
        last=last,
        chunk=chunk,
        name="hfp8-2019",
    )
    fp16 = parse_format(_FP16_2018)
    return Recipe(
        "hfp8-2019",
        "hybrid FP8: (1,4,3) forward, (1,5,2) backward, FP16 (1,6,9) accumulation",
        "Sun et al., NeurIPS 2019",
        policy,
        WeightUpdate(fp16, Rounding.STOCHASTIC, fp16),
        LossScaling(2.0**10, dynamic=True),
    )


def _block(name: str, inputs: Any, description: str, source: str) -> Recipe:
    return Recipe(name, description, source, Policy(inputs=inputs, name=name))


def mxfp8() -> Recipe:
    """OCP Microscaling v1.0: MXFP8 (e4m3, blocks of 32 along k) for every operand, float32 accumulators."""
    return _block(
        "mxfp8", "mxfp8_e4m3", "MXFP8 (e4m3) inputs, float32 accumulators", "OCP Microscaling Formats v1.0"
    )


def mxfp4() -> Recipe:
    """MXFP4 (e2m1, blocks of 32 along k), gradients rounded stochastically, float32 accumulators.

    Tseng et al., Training LLMs with MXFP4 (arXiv 2502.20586), the stochastically rounded gradients without the
    random Hadamard transform.
    """
    roles = {"activation": "mxfp4", "weight": "mxfp4", "gradient": "mxfp4,stochastic"}
    return _block(
        "mxfp4", roles, "MXFP4 inputs, float32 accumulators", "OCP Microscaling Formats v1.0; arXiv 2502.20586"
    )


def nvfp4() -> Recipe:
    """NVFP4 (e2m1, blocks of 16 along k with e4m3 scales), gradients rounded stochastically.

    Pretraining Large Language Models with NVFP4 (arXiv 2509.25149), without its Hadamard transform, two-dimensional
    weight blocks and layers in high precision; float32 accumulators.
    """
    roles = {"activation": "nvfp4", "weight": "nvfp4", "gradient": "nvfp4,stochastic"}
    return _block("nvfp4", roles, "NVFP4 inputs, float32 accumulators", "arXiv 2509.25149")


def hopper_fp8(*, promote_every: int | None = 128) -> Recipe:
    """FP8 on Hopper's tensor cores, whose accumulation truncates to about 14 bits.

    e4m3 activations and weights, e5m2 gradients, one power-of-two scale per tensor; promotion to float32 every 128
    products (DeepSeek-V3, arXiv 2412.19437, its FP8 accumulation) or, with ``promote_every=None``, none.
    """
    unit = "h100-fp8" if promote_every is None else f"h100-fp8,promote_every={promote_every}"
    roles = {
        "activation": "e4m3fn,scale=tensor",
        "weight": "e4m3fn,scale=tensor",
        "gradient": "e5m2,scale=tensor",
    }
    promotion = "without promotion" if promote_every is None else f"promoted every {promote_every}"
    return Recipe(
        "hopper-fp8",
        f"FP8 inputs, H100 FP8 tensor-core accumulation {promotion}",
        "arXiv 2412.19437 (FP8 accumulation); arXiv 2511.10909",
        Policy(unit, unit, unit, roles, name="hopper-fp8"),
    )


def lba12_2024() -> Recipe:
    """Blumenfeld et al., ICLR 2024 (arXiv 2401.14110): 12-bit (1,4,7) accumulators in forward.

    Mantissas of products and sums are cut, chunk 16; inputs and both gradients stay in float32.
    """
    return Recipe(
        "lba12-2024",
        "12-bit (1,4,7) truncating accumulators in forward",
        "arXiv 2401.14110",
        Policy("lba12-2024", name="lba12-2024"),
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    "fp32": fp32,
    "bf16": bf16,
    "accumulation-2019": accumulation_2019,
    "fp8-2018": fp8_2018,
    "fixed16-2015": fixed16_2015,
    "int2-2019": int2_2019,
    "hfp8-2019": hfp8_2019,
    "mxfp8": mxfp8,
    "mxfp4": mxfp4,
    "nvfp4": nvfp4,
    "hopper-fp8": hopper_fp8,
    "lba12-2024": lba12_2024,
}
"""Name → the function that builds the recipe; its docstring names the paper, its arguments are the options."""


def recipe(name: str, *, seed: int = 0, **options: Any) -> Recipe:
    """Return a recipe by name, such as ``"fp8-2018"``; ``options`` are the arguments of its function.

    Raises :class:`InputError` for an unknown name or option, with the nearest known one.
    """
    build = RECIPES.get(name)
    if build is None:
        raise InputError(
            f"unknown recipe {name!r}{did_you_mean(str(name), RECIPES) or '; known are ' + ', '.join(RECIPES)}"
        )
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) or f"; it takes {', '.join(known) or 'none'}"
            raise InputError(f"recipe {name!r} has no option {option!r}{hint}")
    return build(**options).with_seed(seed)
