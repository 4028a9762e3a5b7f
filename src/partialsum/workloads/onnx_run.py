"""An ONNX file as a module that runs: products in torch, where they can be watched, the rest in onnx's own evaluator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from partialsum.errors import InputError
from partialsum.workloads.onnx_nodes import layer_name

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_OTHER_PRODUCTS = {"ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "Attention"}
_OTHER_PRODUCTS |= {"QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"}


class _Layer(nn.Module):
    """One product, under its layer's name."""

    def forward(self, function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        return function(*operands)


class OnnxNetwork(nn.Module):
    """The graph of an ONNX file with its weights, forward only; parameters are the weights of its products.

    ``unwatched`` names the kinds of products that run in onnx's evaluator instead of torch.

    Raises:
        InputError: The file is no ONNX model, lacks its weights, or has an operator that the evaluator lacks.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnx
            from onnx import inliner, numpy_helper
            from onnx.reference import ReferenceEvaluator
        except ImportError as error:
            raise InputError(
                f"running an ONNX file needs the onnx package ({error}); pip install 'partialsum[onnx]' brings it"
            ) from error
        try:
            model = onnx.load(str(path))
        except Exception as error:  # files and their external data fail in many ways
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"cannot run {str(path)!r}: {reason}") from None
        if model.functions:
            model = inliner.inline_local_functions(model)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value for value in model.graph.input if value.name not in weights]
        self.unwatched = sorted({node.op_type for node in model.graph.node} & _OTHER_PRODUCTS)
        self._layers: dict[str, tuple[_Layer, str]] = {}
        for node in model.graph.node:
            if node.op_type not in _PRODUCTS:
                continue
            weight = next((name for name in reversed(node.input[:2]) if name in weights), "")
            layer = self._at(layer_name(node, weight))
            if weight:
                value = torch.from_numpy(np.array(numpy_helper.to_array(weights[weight]), dtype=np.float32))
                layer.weight = nn.Parameter(value)
            self._layers[node.output[0]] = layer, weight
        try:
            self._evaluator = ReferenceEvaluator(model, new_ops=_operators(self._product))
        except Exception as error:  # what it lacks is told in many ways
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"cannot run {str(path)!r}: {reason}") from None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the first output of the graph."""
        feeds = {value.name: x.numpy() for value, x in zip(self.inputs, inputs, strict=True)}
        outputs: Any = self._evaluator.run(None, feeds)
        return torch.from_numpy(np.asarray(outputs[0]))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Return random inputs of the graph's shapes; a leading axis that is not fixed gets ``batch``."""
        found = []
        for value in self.inputs:
            tensor = value.type.tensor_type
            sizes = [axis.dim_value for axis in tensor.shape.dim]
            if not all(sizes[1:]):
                raise InputError(f"input {value.name!r} has axes of unknown size; export the file with fixed ones")
            shape = (sizes[0] or batch, *sizes[1:]) if sizes else ()
            found.append(torch.randn(shape) if tensor.elem_type == 1 else torch.randint(0, 256, shape))
        return tuple(found)

    def _at(self, path: str) -> _Layer:
        place: nn.Module = self
        for part in path.split("."):
            if part not in place._modules:
                place.add_module(part, _Layer())
            place = place._modules[part]  # type: ignore[assignment]
        return place  # type: ignore[return-value]

    def _product(self, node: Any, function: Callable[..., Tensor], *operands: Any) -> Any:
        layer, weight = self._layers[node.output[0]]
        tensors = [
            layer.weight if name == weight else torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
            for name, x in zip(node.input, operands, strict=False)
        ]
        return layer(function, *tensors).detach().numpy()


def _operators(product: Callable[..., Any]) -> list[type]:
    from onnx.reference.ops.op_conv import Conv as PlainConv
    from onnx.reference.ops.op_gemm import Gemm_7 as PlainGemm
    from onnx.reference.ops.op_matmul import MatMul as PlainMatMul
    from onnx.reference.ops.op_max_pool import MaxPool as PlainMaxPool

    class MatMul(PlainMatMul):  # type: ignore[misc]
        op_domain = ""

        def _run(self, a: Any, b: Any) -> Any:
            return (product(self.onnx_node, torch.matmul, a, b),)

    class Gemm(PlainGemm):  # type: ignore[misc]
        op_domain = ""

        def _run(
            self, a: Any, b: Any, c: Any = None, alpha: Any = 1, beta: Any = 1, transA: Any = 0, transB: Any = 0
        ) -> Any:
            def multiply(x: Tensor, y: Tensor) -> Tensor:
                return torch.matmul(x.t() if transA else x, y.t() if transB else y)

            result = product(self.onnx_node, multiply, a, b) * np.float32(alpha)
            return (result if c is None else result + np.float32(beta) * c,)

    class Conv(PlainConv):  # type: ignore[misc]
        op_domain = ""

        def _run(self, X: Any, W: Any, B: Any = None, **given: Any) -> Any:
            rank = X.ndim - 2
            pads = given.get("pads") or [0] * (2 * rank)
            if given.get("auto_pad") not in (None, "NOTSET", "VALID"):
                raise InputError(
                    f"convolution {self.onnx_node.name!r} pads by auto_pad, which cannot be run; export its pads"
                )
            if pads[:rank] != pads[rank:]:
                X, pads = np.pad(X, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]), [0] * rank
            function = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[rank - 1]

            def convolve(x: Tensor, weight: Tensor) -> Tensor:
                return function(
                    x,
                    weight,
                    None,
                    tuple(given.get("strides") or [1] * rank),
                    tuple(pads[:rank]),
                    tuple(given.get("dilations") or [1] * rank),
                    given.get("group") or 1,
                )

            result = product(self.onnx_node, convolve, X, W)
            return (result if B is None else result + B.reshape(-1, *([1] * rank)),)

    class MaxPool(PlainMaxPool):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any, **given: Any) -> Any:
            pads = given.get("pads") or [0] * (2 * (x.ndim - 2))
            odd = (
                given.get("auto_pad") not in (None, "NOTSET")
                or given.get("ceil_mode")
                or pads != [pads[0]] * len(pads)
            )
            if x.ndim != 4 or odd or len(self.onnx_node.output) > 1:
                return super()._run(x, **given)
            size, strides = given["kernel_shape"], given.get("strides") or [1, 1]
            dilations = tuple(given.get("dilations") or [1, 1])
            pooled = nn.functional.max_pool2d(torch.from_numpy(x), tuple(size), tuple(strides), pads[0], dilations)
            return (pooled.numpy(),)

    return [MatMul, Gemm, Conv, MaxPool]
