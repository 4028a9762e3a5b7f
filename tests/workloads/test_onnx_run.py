"""An ONNX file that runs: the evaluator's own results, under the names that the analysis gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import partialsum as ps
from commands import Run
from partialsum.workloads.onnx_run import OnnxNetwork


def weight(name: str, *shape: int) -> TensorProto:
    rng = np.random.default_rng(len(name) + sum(shape))
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def write(path: Path, batch: int | str = "n") -> Path:
    """Two convolutions (one strided, one with groups and unequal pads), pooling, a product of activations, a read-out."""
    nodes = [
        helper.make_node(
            "Conv", ["x", "stem.weight", "stem.bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2], name="n1"
        ),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "mid.weight"], ["d"], pads=[0, 1, 1, 1], group=2, name="n2"),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "hidden.weight"], ["f"], name="n3"),
        helper.make_node("Transpose", ["f"], ["g"], perm=[1, 0]),
        helper.make_node("MatMul", ["f", "g"], ["h"], name="/self/MatMul"),
        helper.make_node("MatMul", ["h", "f"], ["i"], name="/other/MatMul"),
        helper.make_node("Gemm", ["i", "fc.weight", "fc.bias"], ["y"], transB=1, alpha=0.5, beta=2.0, name="n5"),
    ]
    weights = [
        weight("stem.weight", 4, 1, 3, 3),
        weight("stem.bias", 4),
        weight("mid.weight", 6, 2, 2, 3),
        weight("hidden.weight", 54, 8),
        weight("fc.weight", 10, 8),
        weight("fc.bias", 10),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_outputs_are_those_of_the_evaluator(tmp_path: Path) -> None:
    path = write(tmp_path / "small.onnx")
    network = OnnxNetwork(path)
    (x,) = network.example_inputs(5)
    assert x.shape == (5, 1, 12, 12)
    want = ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(network(x).numpy(), want, rtol=1e-4, atol=1e-3)
    with ps.emulate(network, ps.Policy("e8m2", "e8m2", "e8m2", inputs="e5m2")):
        assert np.abs(network(x).numpy() - want).max() > 1e-3 * np.abs(want).max()


def test_names_and_sizes_are_those_of_the_analysis(tmp_path: Path) -> None:
    path = write(tmp_path / "small.onnx")
    network = OnnxNetwork(path)
    found = ps.measure(network, [network.example_inputs(5)], accumulators=["e8m6", "e8m9"])
    analysed = {row.layer: row for row in ps.analyze(str(path), batch=5).rows if row.pass_ is ps.Pass.FORWARD}
    measured = {row.layer: row for row in found.rows}
    assert list(measured) == ["stem", "mid", "hidden", "self.matmul", "other.matmul", "fc"]
    assert list(analysed) == list(measured)
    for name, row in measured.items():
        assert (row.m, row.n, row.k) == (analysed[name].m, analysed[name].n, analysed[name].k), name
    assert measured["mid"].density < 1


def test_the_command_measures_a_file(run: Run, tmp_path: Path) -> None:
    path, density = write(tmp_path / "small.onnx", 4), tmp_path / "density.csv"
    sizes = ("--batches", "2", "--man-bits", "5,8", "--density-file", str(density))
    result = run("measure", str(path), "--data", "fashion-mnist", *sizes)
    assert result.returncode == 0, result.stderr
    assert "forward only" in result.stderr
    assert "images of 1x28x28 are brought to 1x12x12" in result.stderr
    assert "swamps first" in result.stdout


def test_what_does_not_run_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(ps.InputError, match=r"cannot run '.*broken\.onnx'"):
        OnnxNetwork(path)
    with pytest.raises(ps.InputError, match=r"cannot run '.*absent\.onnx'"):
        OnnxNetwork(tmp_path / "absent.onnx")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "loose",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight("w", 3, 3)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "loose.onnx")
    with pytest.raises(ps.InputError, match="input 'x' has axes of unknown size; export the file with fixed ones"):
        OnnxNetwork(tmp_path / "loose.onnx").example_inputs(2)
    assert torch.is_grad_enabled()
