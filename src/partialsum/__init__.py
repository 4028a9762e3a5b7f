"""partialsum: how narrow may a matrix unit's accumulator be, for this network, and what does that buy?

Every public name is imported on first use, so that ``import partialsum`` costs next to nothing and torch is
loaded only by what needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ACCUMULATORS": "accumulators",
    "Accumulator": "accumulators",
    "AlignedAccumulator": "accumulators",
    "DotAccumulator": "accumulators",
    "IntegerAccumulator": "accumulators",
    "Overflow": "accumulators",
    "Rounding": "accumulators",
    "parse_accumulator": "accumulators",
    "conv1d": "arithmetic.convolution",
    "conv2d": "arithmetic.convolution",
    "conv3d": "arithmetic.convolution",
    "gemm": "arithmetic.gemm",
    "num_threads": "arithmetic.native",
    "set_num_threads": "arithmetic.native",
    "simd_level": "arithmetic.native",
    "Blocks": "arithmetic.quantize",
    "quantize": "arithmetic.quantize",
    "quantize_blocks": "arithmetic.quantize",
    "Emulation": "emulation.hooks",
    "emulate": "emulation.hooks",
    "restore": "emulation.hooks",
    "Inputs": "emulation.operands",
    "OperandFormat": "emulation.operands",
    "Outputs": "emulation.operands",
    "RoundedOptimizer": "emulation.optimizers",
    "LayerRule": "emulation.policy",
    "Policy": "emulation.policy",
    "RECIPES": "emulation.recipes",
    "recipe": "emulation.recipes",
    "DynamicLossScale": "emulation.scaling",
    "StaticLossScale": "emulation.scaling",
    "Recipe": "emulation.training",
    "Training": "emulation.training",
    "policy_from": "emulation.widths",
    "InputError": "errors",
    "load_dataset": "experiments.data",
    "BlockFormat": "formats",
    "FORMATS": "formats",
    "FixedFormat": "formats",
    "FloatFormat": "formats",
    "IntFormat": "formats",
    "parse_format": "formats",
    "product_man_bits": "formats",
    "MacCost": "hardware.cost",
    "mac_cost": "hardware.cost",
    "Technology": "hardware.technology",
    "record_operands": "measurement.recording",
    "Measurement": "measurement.result",
    "Measurements": "measurement.result",
    "measure": "measurement.run",
    "Sweep": "measurement.sweep",
    "analyze": "report.analysis",
    "Explorer": "report.explorer.page",
    "explore": "report.explorer.page",
    "NetworkCost": "report.network_cost",
    "network_cost": "report.network_cost",
    "Report": "report.result",
    "datatype_bits": "theory.bounds",
    "largest_l1_norm": "theory.bounds",
    "likely_bits": "theory.bounds",
    "weight_bits": "theory.bounds",
    "narrowest_chunked": "theory.chunks",
    "optimal_chunk": "theory.chunks",
    "GradientGemm": "theory.exponents",
    "advise_loss_scale": "theory.exponents",
    "exponent_need": "theory.exponents",
    "Simulation": "theory.montecarlo",
    "simulate": "theory.montecarlo",
    "PiecewiseLaw": "theory.piecewise",
    "Prediction": "theory.predict",
    "predict": "theory.predict",
    "Operand": "theory.products",
    "ProductLaw": "theory.products",
    "ChunkChoice": "theory.solver",
    "best_chunk": "theory.solver",
    "longest_length": "theory.solver",
    "min_man_bits": "theory.solver",
    "log_variance_lost_normalised": "theory.variance",
    "variance_lost": "theory.variance",
    "vrr": "theory.variance",
    "Gemm": "workloads.gemm",
    "Pass": "workloads.gemm",
    "Role": "workloads.gemm",
    "Unanalysed": "workloads.gemm",
    "Workload": "workloads.gemm",
    "load_workload": "workloads.load",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604  # built from one table on purpose

if TYPE_CHECKING:
    from partialsum.accumulators import (
        ACCUMULATORS as ACCUMULATORS,
        Accumulator as Accumulator,
        AlignedAccumulator as AlignedAccumulator,
        DotAccumulator as DotAccumulator,
        IntegerAccumulator as IntegerAccumulator,
        Overflow as Overflow,
        Rounding as Rounding,
        parse_accumulator as parse_accumulator,
    )
    from partialsum.arithmetic.convolution import (
        conv1d as conv1d,
        conv2d as conv2d,
        conv3d as conv3d,
    )
    from partialsum.arithmetic.gemm import (
        gemm as gemm,
    )
    from partialsum.arithmetic.native import (
        num_threads as num_threads,
        set_num_threads as set_num_threads,
        simd_level as simd_level,
    )
    from partialsum.arithmetic.quantize import (
        Blocks as Blocks,
        quantize as quantize,
        quantize_blocks as quantize_blocks,
    )
    from partialsum.emulation.hooks import (
        Emulation as Emulation,
        emulate as emulate,
        restore as restore,
    )
    from partialsum.emulation.operands import (
        Inputs as Inputs,
        OperandFormat as OperandFormat,
        Outputs as Outputs,
    )
    from partialsum.emulation.optimizers import (
        RoundedOptimizer as RoundedOptimizer,
    )
    from partialsum.emulation.policy import (
        LayerRule as LayerRule,
        Policy as Policy,
    )
    from partialsum.emulation.recipes import (
        RECIPES as RECIPES,
        recipe as recipe,
    )
    from partialsum.emulation.scaling import (
        DynamicLossScale as DynamicLossScale,
        StaticLossScale as StaticLossScale,
    )
    from partialsum.emulation.training import (
        Recipe as Recipe,
        Training as Training,
    )
    from partialsum.emulation.widths import (
        policy_from as policy_from,
    )
    from partialsum.errors import (
        InputError as InputError,
    )
    from partialsum.experiments.data import (
        load_dataset as load_dataset,
    )
    from partialsum.formats import (
        FORMATS as FORMATS,
        BlockFormat as BlockFormat,
        FixedFormat as FixedFormat,
        FloatFormat as FloatFormat,
        IntFormat as IntFormat,
        parse_format as parse_format,
        product_man_bits as product_man_bits,
    )
    from partialsum.hardware.cost import (
        MacCost as MacCost,
        mac_cost as mac_cost,
    )
    from partialsum.hardware.technology import (
        Technology as Technology,
    )
    from partialsum.measurement.recording import (
        record_operands as record_operands,
    )
    from partialsum.measurement.result import (
        Measurement as Measurement,
        Measurements as Measurements,
    )
    from partialsum.measurement.run import (
        measure as measure,
    )
    from partialsum.measurement.sweep import (
        Sweep as Sweep,
    )
    from partialsum.report.analysis import (
        analyze as analyze,
    )
    from partialsum.report.explorer.page import (
        Explorer as Explorer,
        explore as explore,
    )
    from partialsum.report.network_cost import (
        NetworkCost as NetworkCost,
        network_cost as network_cost,
    )
    from partialsum.report.result import (
        Report as Report,
    )
    from partialsum.theory.bounds import (
        datatype_bits as datatype_bits,
        largest_l1_norm as largest_l1_norm,
        likely_bits as likely_bits,
        weight_bits as weight_bits,
    )
    from partialsum.theory.chunks import (
        narrowest_chunked as narrowest_chunked,
        optimal_chunk as optimal_chunk,
    )
    from partialsum.theory.exponents import (
        GradientGemm as GradientGemm,
        advise_loss_scale as advise_loss_scale,
        exponent_need as exponent_need,
    )
    from partialsum.theory.montecarlo import (
        Simulation as Simulation,
        simulate as simulate,
    )
    from partialsum.theory.piecewise import (
        PiecewiseLaw as PiecewiseLaw,
    )
    from partialsum.theory.predict import (
        Prediction as Prediction,
        predict as predict,
    )
    from partialsum.theory.products import (
        Operand as Operand,
        ProductLaw as ProductLaw,
    )
    from partialsum.theory.solver import (
        ChunkChoice as ChunkChoice,
        best_chunk as best_chunk,
        longest_length as longest_length,
        min_man_bits as min_man_bits,
    )
    from partialsum.theory.variance import (
        log_variance_lost_normalised as log_variance_lost_normalised,
        variance_lost as variance_lost,
        vrr as vrr,
    )
    from partialsum.workloads.gemm import (
        Gemm as Gemm,
        Pass as Pass,
        Role as Role,
        Unanalysed as Unanalysed,
        Workload as Workload,
    )
    from partialsum.workloads.load import (
        load_workload as load_workload,
    )


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'partialsum' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"partialsum.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
