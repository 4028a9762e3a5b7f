"""What a trace writes down: products with their operands' lineage, turned into named GEMMs at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from partialsum.workloads.gemm import Gemm, Pass, Role, Unanalysed
from partialsum.workloads.lineage import Lineage, LineageTable
from partialsum.workloads.names import split_parameter, weight_layer
from partialsum.workloads.passes import (
    Convolution,
    Operand,
    attention_passes,
    convolution_passes,
    join,
    product_passes,
)


@dataclass(slots=True)
class _Product:
    """One recorded product; ``kind`` is settled late, when it is known whether a softmax follows."""

    layer: str
    kind: str
    passes: Callable[[str, str], tuple[Gemm, ...]]
    suffix: str = ""


class Recorder:
    """Collects the products of one trace.

    ``suspended`` is positive while an operation that was already recorded as a whole runs its parts; ``user_grad``
    is whether the user's code has gradients switched on; ``failed_in`` names the innermost module that an exception
    went through.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._path: list[str] = []
        self.failed_in = ""
        self.used: set[str] = set()
        self.lineages = LineageTable()
        self.suspended = 0
        self.user_grad = True
        self._needs_grad = WeakIdKeyDictionary()
        self._products: list[_Product] = []
        self._unanalysed: dict[Unanalysed, None] = {}
        self._notes: dict[str, None] = {}

    def use(self, tensors: Iterable[Tensor]) -> None:
        """Learn which parameters take part in the forward pass."""
        for tensor in tensors:
            lineage = self.lineages.get(tensor)
            if lineage is not None:
                self.used.update(lineage.parameter)

    def operand(self, *tensors: Tensor) -> Operand:
        """Return what an operand computed from ``tensors`` is, and whether it needs a gradient."""
        known = [lineage for tensor in tensors if (lineage := self.lineages.get(tensor)) is not None]
        weight = bool(known) and all(lineage.role is Role.WEIGHT for lineage in known)
        return Operand(Role.WEIGHT if weight else Role.ACTIVATION, any(map(self._wants_gradient, tensors)))

    def product(
        self, shape: tuple[int, int, int], a: Tensor, b: Tensor, out: Tensor, *, count: int = 1, note: str = ""
    ) -> None:
        """Record ``count`` products ``out[m, n] = a[m, k] @ b[k, n]`` of ``shape`` ``(m, n, k)``.

        A weight that is one and the same for all ``count`` makes it one larger product: the gradient of that weight
        accumulates over all of them.
        """
        m, n, k = shape
        left, right = self._operands(a, b)
        if right.role is Role.WEIGHT and left.role is not Role.WEIGHT:
            copies = self._copies(b, count)
            m, count = m * copies, count // copies
        elif left.role is Role.WEIGHT and right.role is not Role.WEIGHT:
            copies = self._copies(a, count)
            n, count = n * copies, count // copies
        if k == 1 and not (left.needs_grad or right.needs_grad):
            self.note(f"{self.here or self.root}: an outer product (k = 1) without gradients is left out")
            return

        def passes(layer: str, kind: str) -> tuple[Gemm, ...]:
            return product_passes(layer, kind, (m, n, k), count=count, a=left, b=right, note=note)

        weights = [t for t, o in ((a, left), (b, right)) if o.role is Role.WEIGHT]
        if weights:
            both = len(weights) == 2
            kind = "weight_product" if both else "linear"
            named = next((t for t in reversed(weights) if not self._is_buffer(t)), weights[-1])
            self._add(_Product(self._layer_of(named), kind, passes))
            self._set_output(out, self.lineages.get(b) if both else None)
        else:
            self._set_output(out, self._add_activation_product(passes, a, b))

    def convolution(self, conv: Convolution, x: Tensor, weight: Tensor, out: Tensor) -> None:
        """Record a convolution."""
        left, right = self._operands(x, weight)

        def passes(layer: str, kind: str) -> tuple[Gemm, ...]:
            return convolution_passes(layer, conv, x=left, weight=right)

        layer = self._layer_of(weight) if right.role is Role.WEIGHT else self.here
        self._add(_Product(layer, conv.kind, passes))
        self._set_output(out, None)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
        """Record a fused attention over ``[batch, heads, tokens, size]``."""
        operands = {"query": self.operand(query), "key": self.operand(key), "value": self.operand(value)}
        batch, heads, queries, head_size = query.shape
        gemms = attention_passes(
            "",
            queries=queries,
            keys=key.shape[-2],
            head_size=head_size,
            value_size=value.shape[-1],
            count=batch * heads,
            **operands,
        )
        for suffix in ("scores", "values"):
            part = tuple(gemm for gemm in gemms if gemm.layer == suffix)
            self._add(_Product(self.here, part[0].kind, _renamed(part), suffix))
        self._set_output(out, None)

    def passes(self, gemms: Sequence[Gemm]) -> None:
        """Record finished GEMMs, whose layers are relative to the running module."""
        for gemm in gemms:
            self._add(_Product(join(self.here, gemm.layer), gemm.kind, _renamed((gemm,))))

    def refuse(self, operation: str, reason: str) -> None:
        """Record an operation that holds a GEMM but cannot be analysed."""
        if not self.suspended:
            self._unanalysed[Unanalysed(self.here or self.root, operation, reason)] = None

    def note(self, text: str) -> None:
        """Record an assumption or an omission, once."""
        if not self.suspended:
            self._notes[text] = None

    def carry_gradient(self, inputs: Iterable[Tensor], results: Iterable[Tensor]) -> None:
        """Inside a custom ``autograd.Function``, keep book of gradients in autograd's stead.

        Autograd is switched off there although the user did not ask for it, and the results do not say that they
        need a gradient; outside, autograd's own flag tells.
        """
        if self.inside_custom_function and any(map(self._wants_gradient, inputs)):
            self._needs_grad.update((result, True) for result in results if result.is_floating_point())

    def _wants_gradient(self, tensor: Tensor) -> bool:
        hidden = self.inside_custom_function and tensor in self._needs_grad
        return self.user_grad and (tensor.requires_grad or hidden)

    @property
    def inside_custom_function(self) -> bool:
        """Whether autograd switched gradients off, not the user."""
        return self.user_grad and not torch.is_grad_enabled()

    @property
    def here(self) -> str:
        """The name of the module that is running."""
        return self._path[-1] if self._path else ""

    def enter(self, module: str) -> None:
        """Learn that the forward pass of the module of this name begins."""
        self._path.append(module)
        self.failed_in = ""

    def leave(self, *, failed: bool) -> None:
        """Learn that the innermost module is done, or that an exception goes through it."""
        left = self._path.pop()
        if failed and not self.failed_in:
            self.failed_in = left or self.root

    @property
    def unanalysed(self) -> tuple[Unanalysed, ...]:
        """The operations that were refused."""
        return tuple(self._unanalysed)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, in order."""
        return tuple(self._notes)

    def softmax(self, x: Tensor, out: Tensor) -> None:
        """Learn that a softmax was applied: the product behind ``x`` was one of attention scores."""
        lineage = self.lineages.get(x)
        if lineage is None or lineage.product is None or self.suspended:
            return
        scores = self._products[lineage.product]
        scores.kind, scores.suffix = "attention_scores", "scores"
        self.lineages.set(out, replace(lineage, softmax=True))

    def gemms(self) -> tuple[Gemm, ...]:
        """Return all GEMMs in order of first use; equal ones of one layer are merged into a count."""
        merged: dict[Gemm, list[Gemm]] = {}
        for product in self._products:
            layer = join(product.layer, product.suffix) if product.suffix else product.layer
            for gemm in product.passes(layer or self.root, product.kind):
                if 0 in (gemm.m, gemm.n, gemm.k, gemm.count):
                    continue  # an empty product, as of a batch of nothing
                merged.setdefault(replace(gemm, count=0, macs=None), []).append(gemm)
        return tuple(_merge(equal) for equal in merged.values())

    def _add(self, product: _Product) -> int | None:
        if self.suspended:
            return None
        self._products.append(product)
        return len(self._products) - 1

    def _add_activation_product(
        self, passes: Callable[[str, str], tuple[Gemm, ...]], a: Tensor, b: Tensor
    ) -> Lineage:
        probabilities = any(
            lineage.softmax for tensor in (a, b) if (lineage := self.lineages.get(tensor)) is not None
        )
        kind, suffix = ("attention_values", "values") if probabilities else ("matmul", "matmul")
        return Lineage(Role.ACTIVATION, product=self._add(_Product(self.here, kind, passes, suffix)))

    def _set_output(self, out: Tensor, lineage: Lineage | None) -> None:
        if lineage is None:
            lineage = Lineage(Role.ACTIVATION)
        elif lineage.role is Role.WEIGHT:
            lineage = replace(lineage, distinct=out.numel())
        self.lineages.set(out, lineage)

    def _operands(self, a: Tensor, b: Tensor) -> tuple[Operand, Operand]:
        left, right = self.operand(a), self.operand(b)
        if left.role is Role.WEIGHT and right.role is Role.WEIGHT:
            # A learned table (queries, positions) that runs through a layer is data to that layer.
            owns_left, owns_right = self._is_own(a), self._is_own(b)
            if owns_right and not owns_left:
                left = replace(left, role=Role.ACTIVATION)
            elif owns_left and not owns_right:
                right = replace(right, role=Role.ACTIVATION)
        return left, right

    def _is_own(self, tensor: Tensor) -> bool:
        lineage = self.lineages.get(tensor)
        return lineage is not None and any(
            split_parameter(name)[0] == self.here for name in lineage.parameter if name not in self.lineages.buffers
        )

    def _is_buffer(self, tensor: Tensor) -> bool:
        lineage = self.lineages.get(tensor)
        return lineage is not None and self.lineages.buffers.issuperset(lineage.parameter)

    def _copies(self, weight: Tensor, count: int) -> int:
        copies = weight.numel() // max(1, self.lineages.distinct(weight))
        return copies if copies > 0 and count % copies == 0 else 1

    def _layer_of(self, weight: Tensor) -> str:
        """Name a layer after its weight: the module that owns it, or the running module where it is tied."""
        lineage = self.lineages.get(weight)
        names = lineage.parameter if lineage else ()
        return weight_layer(names, self.here) if names else self.here


def _renamed(gemms: tuple[Gemm, ...]) -> Callable[[str, str], tuple[Gemm, ...]]:
    def passes(layer: str, kind: str) -> tuple[Gemm, ...]:
        return tuple(replace(gemm, layer=layer, kind=kind) for gemm in gemms)

    return passes


def _merge(equal: list[Gemm]) -> Gemm:
    first = equal[0]
    if len(equal) == 1:
        return first
    macs = None if first.macs is None else sum(gemm.macs or 0 for gemm in equal)
    note = first.note
    if first.pass_ is Pass.GRAD_WEIGHT:
        calls = f"{len(equal)} calls share the weight; each call's gradient is accumulated on its own, then summed"
        note = f"{note}; {calls}" if note else calls
    return replace(first, count=sum(gemm.count for gemm in equal), macs=macs, note=note)
