"""The nodes of an ONNX graph that hold GEMMs, in the graph's order, with the flow of data between them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from partialsum.workloads.gemm import Gemm, Role, Unanalysed
from partialsum.workloads.passes import (
    Convolution,
    Operand,
    Recurrence,
    attention_passes,
    convolution_passes,
    join,
    product_passes,
    recurrent_passes,
)

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
Passes = Callable[[str, str], tuple[Gemm, ...]]


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a tensor.

    ``static`` is whether it is computed from initializers alone, ``initializer`` the name of one of them;
    ``product`` is the index of the activation product that these values are a rescaled or masked form of, and
    ``softmax`` whether they went through a softmax since.
    """

    static: bool = False
    initializer: str = ""
    needs_grad: bool = False
    product: int | None = None
    softmax: bool = False


@dataclass(slots=True)
class _Product:
    layer: str
    kind: str
    passes: Passes


@dataclass(slots=True)
class Walk:
    """The state of reading one graph, and its result."""

    shapes: Mapping[str, Shape]
    values: dict[str, _Value]
    products: list[_Product] = field(default_factory=list)
    refused: dict[Unanalysed, None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def gemms(self) -> tuple[Gemm, ...]:
        """All GEMMs, in the order of the graph; layers of the same name are told apart by a number."""
        found: list[Gemm] = []
        seen: Counter[str] = Counter()
        for product in self.products:
            layer = join(product.layer, _SUFFIXES[product.kind]) if product.kind in _SUFFIXES else product.layer
            seen[layer] += 1
            found += product.passes(f"{layer}#{seen[layer]}" if seen[layer] > 1 else layer, product.kind)
        return tuple(found)

    @property
    def unanalysed(self) -> tuple[Unanalysed, ...]:
        """The nodes that hold a GEMM but could not be analysed."""
        return tuple(self.refused)

    def operand(self, name: str) -> Operand:
        """Return what the tensor ``name`` is as an operand; a weight is taken for trainable."""
        value = self.values.get(name, _Value())
        return Operand(Role.WEIGHT) if value.static else Operand(Role.ACTIVATION, value.needs_grad)

    def add(self, node: onnx.NodeProto, kind: str, passes: Passes, weight: str) -> int:
        """Record the product of ``node``, named after its ``weight`` or itself; return its index."""
        layer = layer_name(node, self.values.get(weight, _Value()).initializer)
        self.products.append(_Product(layer, kind, passes))
        return len(self.products) - 1


class Unknown(Exception):  # noqa: N818  # caught in this module, and told as an Unanalysed
    """A node cannot be analysed; the message says why."""


def walk(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Walk:
    """Read all nodes of ``model``, whose tensors have the given ``shapes`` where they are known."""
    values = {tensor.name: _Value(static=True, initializer=tensor.name) for tensor in model.graph.initializer}
    state = Walk(shapes, values)
    for node in model.graph.node:
        outcome = None
        handler = _HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if handler is not None:
                outcome = handler(state, node)
            elif (reason := _suspicion(node)) is not None:
                raise Unknown(reason)
        except Unknown as error:
            layer = layer_name(node, "")
            operation = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            state.refused[Unanalysed(layer, operation, str(error))] = None
            outcome = _Value(needs_grad=True)
        _carry(state, node, outcome)
    return state


def _shape(state: Walk, name: str) -> Shape:
    if name not in state.shapes:
        raise Unknown(f"the shape of its tensor {name!r} is not known")
    return state.shapes[name]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _convolution(state: Walk, node: onnx.NodeProto) -> _Value:
    places = (0, 3) if node.op_type == "QLinearConv" else (0, 1)
    x_name, weight_name = (node.input[place] for place in places)
    x, weight, y = _shape(state, x_name), _shape(state, weight_name), _shape(state, node.output[0])
    attributes = _attributes(node)
    groups = attributes.get("group", 1)
    transposed = node.op_type == "ConvTranspose"
    _check_fit(x[1], weight[0] if transposed else weight[1] * groups, x, weight)
    conv = Convolution(
        batch=x[0],
        in_channels=x[1],
        out_channels=y[1],
        kernel=weight[2:],
        in_size=x[2:],
        out_size=y[2:],
        stride=tuple(attributes.get("strides", (1,) * (len(x) - 2))),
        groups=groups,
        transposed=transposed,
    )
    a, b = _trained(state, node, x_name, weight_name)
    state.add(node, conv.kind, lambda layer, _: convolution_passes(layer, conv, x=a, weight=b), weight_name)
    return _Value(needs_grad=a.needs_grad or b.needs_grad)


def _gemm(state: Walk, node: onnx.NodeProto) -> _Value:
    attributes = _attributes(node)
    a, b = _shape(state, node.input[0]), _shape(state, node.input[1])
    m, k = reversed(a) if attributes.get("transA", 0) else a
    rows, n = reversed(b) if attributes.get("transB", 0) else b
    _check_fit(k, rows, a, b)
    return _product(state, node, (node.input[0], node.input[1]), (m, n, k))


def _matmul(state: Walk, node: onnx.NodeProto) -> _Value:
    a_name, b_name = node.input[0], node.input[3 if node.op_type == "QLinearMatMul" else 1]
    a, b = _shape(state, a_name), _shape(state, b_name)
    k = a[-1]
    _check_fit(k, b[-2] if len(b) > 1 else b[0], a, b)
    m, n = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
    batch_a, batch_b = math.prod(a[:-2]), math.prod(b[:-2])
    count = math.prod(_broadcast(a[:-2], b[:-2]))
    left, right = state.operand(a_name).role, state.operand(b_name).role
    if right is Role.WEIGHT and left is not Role.WEIGHT:
        m, count = m * (count // batch_b), batch_b
    elif left is Role.WEIGHT and right is not Role.WEIGHT:
        n, count = n * (count // batch_a), batch_a
    return _product(state, node, (a_name, b_name), (m, n, k), count)


def _check_fit(k: int, rows: int, a: Shape, b: Shape) -> None:
    if k != rows:
        raise Unknown(f"its operands do not fit: {'x'.join(map(str, a))} and {'x'.join(map(str, b))}")


def _broadcast(a: Shape, b: Shape) -> Shape:
    length = max(len(a), len(b))
    padded = ((1,) * (length - len(shape)) + shape for shape in (a, b))
    return tuple(max(pair) for pair in zip(*padded, strict=True))


def _einsum(state: Walk, node: onnx.NodeProto) -> _Value:
    equation = _attributes(node)["equation"].decode().replace(" ", "")
    terms, arrow, result = equation.partition("->")
    labels = terms.split(",")
    plain = all(len(set(term)) == len(term) and term.isalpha() for term in labels)
    if len(labels) != 2 or not arrow or not plain:
        raise Unknown(f"only an einsum of two plain operands is analysed, not {equation!r}")
    sizes: dict[str, int] = {}
    for name, term in zip(node.input, labels, strict=True):
        sizes |= dict(zip(term, _shape(state, name), strict=True))
    first, second = (set(term) for term in labels)
    outer = {
        "m": first - second,
        "n": second - first,
        "k": (first & second) - set(result),
        "count": first & second & set(result),
    }
    if (outer["m"] | outer["n"]) - set(result):
        raise Unknown(f"the einsum {equation!r} sums an operand before the product")
    m, n, k, count = (math.prod(sizes[label] for label in group) for group in outer.values())
    return _product(state, node, (node.input[0], node.input[1]), (m, n, k), count)


def _product(
    state: Walk, node: onnx.NodeProto, names: tuple[str, str], shape: tuple[int, int, int], count: int = 1
) -> _Value:
    a_name, b_name = names
    a, b = _trained(state, node, a_name, b_name)
    values = [state.values.get(name, _Value()) for name in (a_name, b_name)]
    both_static = all(value.static for value in values)
    if both_static:
        return _Value(static=True, initializer=values[1].initializer)
    needs_grad = a.needs_grad or b.needs_grad

    def passes(layer: str, kind: str) -> tuple[Gemm, ...]:
        return product_passes(layer, kind, shape, count=count, a=a, b=b)

    if any(value.static for value in values):
        state.add(node, "linear", passes, b_name if values[1].static else a_name)
        return _Value(needs_grad=needs_grad)
    kind = "attention_values" if any(value.softmax for value in values) else "matmul"
    return _Value(needs_grad=needs_grad, product=state.add(node, kind, passes, ""))


def _trained(state: Walk, node: onnx.NodeProto, a_name: str, b_name: str) -> tuple[Operand, Operand]:
    """Return both operands; integer operations have no gradients."""
    a, b = state.operand(a_name), state.operand(b_name)
    if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
        return replace(a, needs_grad=False), replace(b, needs_grad=False)
    return a, b


def _attention(state: Walk, node: onnx.NodeProto) -> _Value:
    attributes = _attributes(node)
    query, key, value = (_shape(state, name) for name in node.input[:3])
    if len(query) == 3:
        heads, kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
        queries, head_size = query[1], query[2] // heads
        keys, value_size = key[1], value[2] // kv_heads
    else:
        heads, queries, head_size = query[1:]
        keys, value_size = key[2], value[3]
    if len(node.input) > 4 and node.input[4]:
        keys += _shape(state, node.input[4])[2]
    q, k, v = (state.operand(name) for name in node.input[:3])

    def passes(layer: str, _: str) -> tuple[Gemm, ...]:
        return attention_passes(
            layer,
            queries=queries,
            keys=keys,
            head_size=head_size,
            value_size=value_size,
            count=query[0] * heads,
            query=q,
            key=k,
            value=v,
        )

    state.add(node, "attention", passes, "")
    return _Value(needs_grad=q.needs_grad or k.needs_grad or v.needs_grad)


def _recurrent(state: Walk, node: onnx.NodeProto) -> _Value:
    x, weight, hidden = (_shape(state, name) for name in node.input[:3])
    batch_first = _attributes(node).get("layout", 0)
    steps, batch = (x[1], x[0]) if batch_first else (x[0], x[1])
    cell = Recurrence(steps, batch, steps * batch, ((weight[1], weight[2]), (hidden[1], hidden[2])))
    a, b = state.operand(node.input[0]), state.operand(node.input[1])

    def passes(layer: str, _: str) -> tuple[Gemm, ...]:
        names = ("forward", "reverse") if weight[0] == 2 else ("l0",)
        gemms = (gemm for name in names for gemm in recurrent_passes(name, cell, x=a, weight=b))
        return tuple(replace(gemm, layer=join(layer, gemm.layer)) for gemm in gemms)

    state.add(node, "recurrent", passes, "")
    return _Value(needs_grad=a.needs_grad or b.needs_grad)


def _softmax(state: Walk, node: onnx.NodeProto) -> _Value | None:
    value = state.values.get(node.input[0], _Value())
    if value.product is None:
        return None
    scores = state.products[value.product]
    if scores.kind == "matmul":
        scores.kind = "attention_scores"
    return replace(value, softmax=True)


def _embedding(state: Walk, node: onnx.NodeProto) -> _Value | None:
    """Rows taken out of a learned table are an activation, which needs a gradient."""
    table, indices = (state.values.get(name, _Value()) for name in node.input[:2])
    if table.static and not indices.static and len(state.shapes.get(node.input[0], ())) > 1:
        return _Value(needs_grad=True)
    return None


def _shape_of(_state: Walk, _node: onnx.NodeProto) -> _Value:
    return _Value()


def _branches(_state: Walk, node: onnx.NodeProto) -> None:
    """A subgraph may run any number of times: what it holds is not analysed."""
    held = sorted({name for attribute in node.attribute for name in _held(attribute)})
    if held:
        raise Unknown(f"its subgraph holds {', '.join(held)}, and how often it runs is not known")


def _held(attribute: Any) -> list[str]:
    found = []
    for graph in (attribute.g, *attribute.graphs):
        for node in graph.node:
            if (node.op_type in _PRODUCTS and node.domain in ("", "ai.onnx")) or _suspicion(node):
                found.append(node.op_type)
            for inner in node.attribute:
                found += _held(inner)
    return found


_PRODUCTS: dict[str, Callable[[Walk, Any], _Value]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "QLinearConv": _convolution,
    "ConvInteger": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QLinearMatMul": _matmul,
    "MatMulInteger": _matmul,
    "Einsum": _einsum,
    "Attention": _attention,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
_HANDLERS: dict[str, Callable[[Walk, Any], _Value | None]] = {
    **_PRODUCTS,
    "Softmax": _softmax,
    "Gather": _embedding,
    "GatherND": _embedding,
    "Shape": _shape_of,
    "Size": _shape_of,
    "If": _branches,
    "Loop": _branches,
    "Scan": _branches,
}
_SUFFIXES = {"attention_scores": "scores", "attention_values": "values", "matmul": "matmul"}
_LEARNED_SCALE = re.compile(r"PRelu|\w*Normalization")
_GEMM_LIKE = re.compile(r"conv|gemm|matmul|attention|lstm|gru|rnn|einsum|^(fused)?linear|moe|^det$", re.IGNORECASE)


def _suspicion(node: onnx.NodeProto) -> str | None:
    """Return why a node without a handler may hold a GEMM, or None."""
    if node.op_type in _PRODUCTS and node.domain in ("", "ai.onnx"):
        return None
    if _GEMM_LIKE.search(node.op_type):
        return "holds matrix products whose shapes are not known to this analysis"
    return None


def _carry(state: Walk, node: onnx.NodeProto, outcome: _Value | None) -> None:
    """Give the outputs of a node what its inputs are, unless its handler knows better."""
    if outcome is None:
        inputs = [state.values.get(name, _Value()) for name in node.input if name]
        moving = [value for value in inputs if not value.static]
        if moving:
            learns = _LEARNED_SCALE.fullmatch(node.op_type) is not None
            product = next((value for value in moving if value.product is not None), _Value())
            needs_grad = learns or any(value.needs_grad for value in moving)
            outcome = replace(product, static=False, needs_grad=needs_grad)
        else:
            outcome = _Value(static=True, initializer=inputs[0].initializer if inputs else node.output[0])
            if node.op_type == "ConstantOfShape":
                outcome = replace(outcome, initializer=node.output[0])
    for name in node.output:
        state.values[name] = outcome


_MEANINGLESS = re.compile(r"(node_?)?[A-Za-z]{0,2}_?\d+|")


def layer_name(node: onnx.NodeProto, initializer: str) -> str:
    """Name a layer after its weight where that tells more than the node: ``layer1.0.conv1.weight``, ``n42``."""
    owner, _, leaf = initializer.rpartition(".")
    if owner and leaf == "weight":
        return owner
    if _MEANINGLESS.fullmatch(node.name):
        return initializer or node.output[0]
    path = re.sub(rf"/{node.op_type}(_\d+)?$", "", node.name).strip("/")
    parts: list[str] = []
    for part in path.split("/"):
        if parts and part.startswith(parts[-1] + "."):
            parts.pop()  # exporters write /layer1/layer1.0/conv1
        parts.append(part)
    return ".".join(parts) or node.name.strip("/")
