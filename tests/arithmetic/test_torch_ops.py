"""The torch operators: autograd, fake tensors, opcheck, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import partialsum as ps
from partialsum.arithmetic import torch_ops

ACC = ps.Accumulator("e6m9", chunk=8)


def tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_tensors_give_the_bits_of_arrays() -> None:
    a, b, c = tensors((2, 5, 30), (30, 7), (5, 7))
    got = ps.gemm(a, b, ACC, inputs=("e4m3fn", "e5m2"), c=c)
    want = ps.gemm(a.numpy(), b.expand(2, 30, 7).numpy(), ACC, inputs=("e4m3fn", "e5m2"), c=c.numpy())
    assert torch.equal(got, torch.from_numpy(want))


def test_gradients_are_gemms_with_the_same_accumulator() -> None:
    a, b, c, g = tensors((3, 5, 30), (30, 7), (5, 7), (3, 5, 7))
    a, b, c = (x.requires_grad_() for x in (a, b, c))
    ps.gemm(a, b, ACC, inputs="e5m2", c=c).backward(g)
    with torch.no_grad():
        assert torch.equal(a.grad, ps.gemm(g, b.mT, ACC, inputs=(None, "e5m2")))
        assert torch.equal(b.grad, ps.gemm(a.mT, g, ACC, inputs=("e5m2", None)).sum(0))
        assert torch.equal(c.grad, g.sum(0))


@pytest.mark.parametrize("acc", [ACC, ps.ACCUMULATORS["h100-fp8"], ps.Accumulator("e6m5", "stochastic")], ids=str)
def test_gemm_passes_opcheck(acc: ps.Accumulator) -> None:
    a, b = (x.requires_grad_() for x in tensors((4, 9), (9, 3)))
    name = torch_ops._name_accumulator(acc)
    torch.library.opcheck(torch_ops._gemm, (a, b, None, name, "", "", "cpu"))


def test_convolution_passes_opcheck() -> None:
    x, w = (t.requires_grad_() for t in tensors((1, 2, 5, 5), (3, 2, 3, 3)))
    name = torch_ops._name_accumulator(ACC)
    torch.library.opcheck(torch_ops._conv, (x, w, name, "", "", [1, 2], [1, 1], [1, 1], 1, "cpu"))


def test_fake_tensors_carry_shapes_only() -> None:
    with FakeTensorMode():
        a, b = torch.empty(2, 1, 10**5, 8), torch.empty(3, 8, 10**5)
        assert ps.gemm(a, b, ACC).shape == (2, 3, 10**5, 10**5)
        assert ps.conv2d(torch.empty(2, 4, 9, 9), torch.empty(6, 2, 3, 3), ACC, stride=2, groups=2).shape == (
            2,
            6,
            4,
            4,
        )


def test_quantised_weights_learn_through_the_operator() -> None:
    x, target = tensors((64, 16), (64, 4))
    w = torch.zeros(16, 4, requires_grad=True)
    losses = []
    for _ in range(40):
        loss = (ps.gemm(x, w, ACC, inputs="e4m3fn") - target).square().mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            w -= 0.5 * gradient
    assert losses[-1] < 0.9 * losses[0]


def test_other_devices_are_refused() -> None:
    a = torch.empty(2, 2, device="meta")
    with pytest.raises(
        ps.InputError, match="a must be on a CPU or a CUDA device, as there is no kernel for meta tensors"
    ):
        ps.gemm(a, a, ACC)


def test_other_types_are_refused() -> None:
    a = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ps.InputError, match="a must have dtype float32"):
        ps.gemm(a, a, ACC)
