"""From a configuration to a recipe: the arithmetic that a run trains in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from partialsum.accumulators import Accumulator, parse_accumulator
from partialsum.emulation.policy import LayerRule, Policy
from partialsum.emulation.policy_toml import policy_from_table
from partialsum.emulation.recipes import recipe
from partialsum.emulation.training import LossScaling, Recipe
from partialsum.errors import InputError
from partialsum.experiments.config import AccumulatorConfig, RunConfig
from partialsum.formats import FloatFormat
from partialsum.workloads.gemm import Pass

_ANALYSED = "accumulation-2019"
_ANALYSIS_OPTIONS = ("density", "chunk", "cutoff")
"""Options of that recipe in a configuration that are the analysis' own."""


def build_recipe(config: RunConfig, model: nn.Module, example: Tensor) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe of a run and, where widths were predicted, which.

    Args:
        config: The run.
        model: Its network, for the analysis that ``accumulation-2019`` takes its widths from.
        example: A whole batch of inputs, for the same.
    """
    if config.recipe is not None:
        options = dict(config.recipe.options)
        seed = config.training.seed
        if config.recipe.name != _ANALYSED:
            return recipe(config.recipe.name, seed=seed, **options), {}
        from partialsum.report.analysis import analyze

        given = {key: options.pop(key) for key in _ANALYSIS_OPTIONS if key in options}
        report = analyze(model, (example,), **given)
        chunked = options.get("chunked", True)
        widths: dict[str, dict[str, int]] = {}
        for row in report.rows:
            widths.setdefault(row.layer, {})[str(row.pass_)] = row.man_bits_chunked if chunked else row.man_bits
        return recipe(_ANALYSED, seed=seed, report=report, **options), {"widths": widths}
    if config.accumulator is not None:
        policy = _accumulator_policy(config.accumulator)
        made = Recipe(
            "accumulator", str(policy.name), "", policy, scaling=LossScaling(config.accumulator.loss_scale)
        )
    elif config.policy is not None:
        made = Recipe("policy", "a policy of the configuration", "", policy_from_table(config.policy, "policy"))
    else:
        everything = {"*": LayerRule(emulate=False)}
        made = Recipe("torch", "torch's own float32", "", Policy(layers=everything, name="torch"))
    return made.with_seed(config.training.seed), {}


def _accumulator_policy(config: AccumulatorConfig) -> Policy:
    narrow = Accumulator(FloatFormat(config.exp_bits, config.man_bits), config.rounding, chunk=config.chunk or None)
    wide = parse_accumulator(config.elsewhere)
    chosen: dict[str, Any] = {str(pass_): narrow if str(pass_) in config.passes else wide for pass_ in Pass}
    last = None
    if config.last:
        if config.last == config.inputs:
            raise InputError(f"accumulator.last must differ from accumulator.inputs, got {config.last!r} for both")
        last = LayerRule(config.last, config.last, config.last, inputs=config.last)
    return Policy(**chosen, inputs=config.inputs or None, last=last, name=str(narrow))
