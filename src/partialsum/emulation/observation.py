"""Watching the GEMMs of a model: what an observer is told, and torch's own arithmetic for those that only watch."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from partialsum.emulation.quantization import Prepared
from partialsum.workloads.gemm import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partialsum.emulation.functional import Geometry


class Shape(Enum):
    """How a convolution's pass sums, whatever it is a pass of: a transposed convolution runs forward as ``SPREAD``."""

    CORRELATE = "correlate"
    """x [n, c, *s] and weight [o, c/groups, *q] over (channel, kernel position)."""
    SPREAD = "spread"
    """gradient [n, o, *s] and weight [o, c/groups, *q] over (output channel, kernel position)."""
    POSITIONS = "positions"
    """gradient [n, o, *s] and x [n, c, *s] over (image, output position)."""


class Observer(Protocol):
    """Is shown the operands of every GEMM just before it runs; values still to be quantised carry their format."""

    plain: bool
    """Whether torch computes the results, in float32, rather than the policy's accumulators."""

    def product(self, layer: str, pass_: Pass, a: Prepared, b: Prepared) -> None:
        """``a[..., m, k] @ b[..., k, n]`` is about to run."""

    def convolution(
        self, layer: str, pass_: Pass, shape: Shape, operands: tuple[Prepared, Prepared], geometry: Geometry
    ) -> None:
        """A convolution's pass is about to run; ``geometry.out_size`` is the size of the result."""


def correlate(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the convolution as torch computes it."""
    return torch.convolution(
        x,
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        (0,) * len(geometry.stride),
        geometry.groups,
    )


def spread(gradient: Tensor, weight: Tensor, size: Sequence[int], geometry: Geometry) -> Tensor:
    """Return the gradient of a convolution's input, of shape ``size``, as torch computes it."""
    return _gradient(gradient, gradient.new_empty(1).expand(*size), weight, geometry, (True, False, False))[0]


def correlate_positions(gradient: Tensor, x: Tensor, size: Sequence[int], geometry: Geometry) -> Tensor:
    """Return the gradient of a convolution's weight, of shape ``size``, as torch computes it."""
    return _gradient(gradient, x, gradient.new_empty(1).expand(*size), geometry, (False, True, False))[1]


def _gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        [0] * len(geometry.stride),
        geometry.groups,
        wanted,
    )
    return gradients
