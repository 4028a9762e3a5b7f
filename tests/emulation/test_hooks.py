"""Emulating a model and taking it back: what changes, what does not, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import _len_torch_function_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode

import partialsum as ps
from partialsum.emulation.hooks import emulation_of
from partialsum.emulation.session import _THREAD

NARROW = ps.Policy("e6m3", "e6m3", "e6m3", "e5m2")
NOISY = ps.Policy("e6m3,stochastic", "e6m3,stochastic", "e6m3,stochastic", "e5m2", seed=5)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert _THREAD.session is None
    assert _len_torch_function_stack() == 0
    assert _get_current_dispatch_mode() is None


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def test_parameters_names_and_types_stay() -> None:
    model = small()
    before = dict(model.state_dict())
    types = [type(module) for module in model.modules()]
    ps.emulate(model, NARROW)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [type(module) for module in model.modules()] == types


def test_restore_gives_the_plain_model_back() -> None:
    model, x = small(), torch.randn(3, 8)
    plain = model(x)
    handle = ps.emulate(model, NARROW)
    emulated = model(x)
    assert not torch.equal(emulated, plain)
    handle.restore()
    assert torch.equal(model(x), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks_always_called for module in model.modules())
    with ps.emulate(model, NARROW):
        assert torch.equal(model(x), emulated)
    assert torch.equal(model(x), plain)
    ps.restore(model)  # a model that is not emulated


def test_other_hooks_survive() -> None:
    model, seen = small(), []
    model[0].register_forward_hook(lambda *_: seen.append("kept"))
    ps.emulate(model, NARROW).restore()
    model(torch.randn(3, 8))
    assert seen == ["kept"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_emulated_on_their_own(duplicate: Any) -> None:
    model, x = small(), torch.randn(3, 8)
    plain = model(x)
    ps.emulate(model, NOISY)
    model(x)
    twin = duplicate(model)
    assert torch.equal(twin(x), model(x))  # same counters, so same random bits
    ps.restore(twin)
    assert torch.equal(twin(x), plain)
    assert not torch.equal(model(x), plain)


def test_a_submodule_called_by_itself_is_emulated() -> None:
    model, x = small(), torch.randn(3, 8)
    plain = model[0](x)
    ps.emulate(model, NARROW)
    assert not torch.equal(model[0](x), plain)


def test_what_is_not_the_model_is_left_alone() -> None:
    model, other, x = small(), nn.Linear(8, 4), torch.randn(3, 8)
    plain = other(x)
    ps.emulate(model, NARROW)
    model(x)
    assert torch.equal(other(x), plain)


def test_layers_by_name() -> None:
    model, x = small(), torch.randn(3, 8)
    with ps.emulate(model, ps.Policy("e6m2", layers={"2": ps.LayerRule(emulate=False)})):
        hidden = model[:2](x)
        assert torch.equal(model(x), nn.functional.linear(hidden, model[2].weight, model[2].bias))


def test_first_and_last_are_found() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.tensor([1, 3])
    plain = model(x)
    with ps.emulate(model, ps.Policy(first="e6m2")):
        assert not torch.equal(model(x), plain)
    wide = ps.LayerRule(emulate=False)
    with ps.emulate(model, ps.Policy("e6m2", first=wide, last=wide)):
        assert torch.equal(model(x), plain)


def test_nested_use_is_refused() -> None:
    model = small()
    ps.emulate(model, NARROW)
    with pytest.raises(ps.InputError, match=r"already emulated \(at the model itself\); undo .* ps\.restore"):
        ps.emulate(model, NARROW)
    with pytest.raises(ps.InputError, match=r"already emulated \(at 'inner'\)"):
        ps.emulate(nn.ModuleDict({"inner": model}), NARROW)


def test_an_emulated_model_inside_another_is_refused() -> None:
    class Outer(nn.Module):
        def __init__(self, teacher: nn.Module) -> None:
            super().__init__()
            self.hidden = [teacher]  # a list hides it from named_modules
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden[0](self.fc(x))

    teacher = small()
    outer = Outer(teacher)
    ps.emulate(teacher, NARROW)
    ps.emulate(outer, NARROW)
    with pytest.raises(ps.InputError, match="called inside another emulated model"):
        outer(torch.randn(2, 8))


def test_wrong_arguments() -> None:
    with pytest.raises(ps.InputError, match=r"model must be a torch.nn.Module, got function"):
        ps.emulate(lambda x: x, NARROW)  # type: ignore[arg-type]
    with pytest.raises(ps.InputError, match=r"policy must be a Policy .*, got str"):
        ps.emulate(small(), "fp8-2018")  # type: ignore[arg-type]
    with pytest.raises(ps.InputError, match=r"names layer '1\.fc'"):
        ps.emulate(small(), ps.Policy(layers={"1.fc": "e6m9"}))
    with pytest.raises(ps.InputError, match="TorchScript module"):
        ps.emulate(nn.Sequential(scripted()), NARROW)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:.*torch.jit.*:DeprecationWarning")
def scripted() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(8, 8))


def test_formats_that_do_not_fit() -> None:
    message = (
        "forward of layer '0' accumulates in int32, which needs integer inputs such as 'int8', got e5m2 for its"
    )
    with pytest.raises(ps.InputError, match=message):
        ps.emulate(small(), ps.Policy("int32", inputs="e5m2"))
    with pytest.raises(ps.InputError, match=r"grad_weight of layer '2' .* got float32 for its gradient"):
        ps.emulate(small(), ps.Policy(layers={"2": {"grad_weight": "int32"}}))
    ps.emulate(small(), ps.Policy("int32", inputs="int8,scale=tensor"))


def test_a_device_without_a_kernel() -> None:
    """A fake tensor stands for a device that this machine need not have."""
    elsewhere = FakeTensor(FakeTensorMode(), torch.empty(2, 8, device="meta"), torch.device("xpu:0"))
    model = nn.Linear(8, 4)
    message = "the model runs linear, a product of xpu tensors, for which there is no kernel"
    with ps.emulate(model, NARROW), pytest.raises(ps.InputError, match=message):
        model(elsewhere)


def test_an_exception_in_forward_ends_the_session() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    model = nn.Sequential(nn.Linear(8, 8), Fails())
    ps.emulate(model, NARROW)
    with pytest.raises(ValueError, match="no"):
        model(torch.randn(2, 8))


@pytest.mark.parametrize("calls_before", [0, 1])
def test_after_an_interrupt_nothing_else_is_emulated(calls_before: int) -> None:
    """Forward hooks do not run after Ctrl-C, so the session stays open: it must not leak into other work."""

    class Interrupted(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            if self.armed:
                raise KeyboardInterrupt
            return x

    stop = Interrupted()
    model, x, w = nn.Sequential(nn.Linear(8, 8), stop), torch.randn(3, 8), torch.randn(4, 8)
    plain = x @ w.t()
    ps.emulate(model, NARROW)
    for _ in range(calls_before):
        model(x)
    stop.armed = True
    with pytest.raises(KeyboardInterrupt):
        model(x)
    assert torch.equal(x @ w.t(), plain)
    stop.armed = False
    emulated = model(x)
    assert not torch.equal(emulated, nn.functional.linear(x, model[0].weight, model[0].bias))


class Holder(nn.Module):
    """A model with one layer, called ``layer``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


UNSUPPORTED: dict[str, tuple[Any, str, tuple[int, ...]]] = {
    "lstm": (lambda: nn.LSTM(8, 4), "lstm", (3, 8)),
    "gru cell": (lambda: nn.GRUCell(8, 4), "gru_cell", (3, 8)),
    "rnn": (lambda: nn.RNN(8, 4), "rnn_tanh", (3, 8)),
}


class Calls(nn.Module):
    """A layer that calls one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


UNSUPPORTED |= {
    "bilinear": (lambda: Calls(lambda x: torch.bilinear(x, x, torch.ones(2, 8, 8))), "bilinear", (3, 8)),
    "cdist": (lambda: Calls(lambda x: torch.cdist(x, x)), "cdist", (3, 8)),
    "matrix_power": (lambda: Calls(lambda x: torch.linalg.matrix_power(x, 2)), "linalg_matrix_power", (4, 4)),
    "multi_dot": (lambda: Calls(lambda x: torch.linalg.multi_dot([x, x])), "linalg_multi_dot", (4, 4)),
    "out=": (lambda: Calls(lambda x: torch.mm(x, x, out=torch.empty(4, 4))), "mm", (4, 4)),
    "float64": (lambda: Calls(lambda x: x.double() @ x.double()), "matmul", (4, 4)),
    "integers": (lambda: Calls(lambda x: x.long() @ x.long()), "matmul", (4, 4)),
    "sparse": (lambda: Calls(lambda x: x.to_sparse() @ x), "matmul", (4, 4)),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_emulated_is_refused_or_listed(name: str) -> None:
    build, operation, shape = UNSUPPORTED[name]
    model, x = Holder(build()), torch.randn(*shape)
    with torch.no_grad():
        plain = model(x)
        with ps.emulate(model, NARROW), pytest.raises(ps.InputError, match=f"layer 'layer' runs {operation}, "):
            model(x)
        with ps.emulate(model, NARROW, on_unsupported="list") as handle:
            listed = model(x)
            assert handle.unsupported == (("layer", operation),)
        with ps.emulate(model, ps.Policy(layers={"layer": {"emulate": False}})) as handle:
            model(x)
            assert handle.unsupported == ()
    pairs = zip(plain, listed, strict=True) if isinstance(plain, tuple) else [(plain, listed)]
    for want, got in pairs:
        assert torch.equal(torch.as_tensor(want[0]), torch.as_tensor(got[0]))


def test_the_policy_may_allow_listing() -> None:
    model = nn.Sequential(nn.LSTM(8, 4))
    policy = ps.Policy("e6m3", on_unsupported="list")
    with ps.emulate(model, policy) as handle:
        model(torch.randn(3, 8))
        assert handle.unsupported == (("0", "lstm"),)
    with pytest.raises(ps.InputError, match="on_unsupported must be one of error, list, got 'ignore'"):
        ps.emulate(model, policy, on_unsupported="ignore")


def test_a_quantized_layer_is_refused() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.ao.nn.quantized.dynamic.Linear(8, 4)
    with ps.emulate(layer, NARROW), pytest.raises(ps.InputError, match="quantized::linear_dynamic"):
        layer(torch.randn(2, 8))


def test_a_gemm_inside_compiled_code_is_noticed() -> None:
    """The names of functions do not show it; the watch on the first call does."""
    library = torch.library.Library("partialsum_test", "DEF")
    library.define("hidden(Tensor x) -> Tensor")
    library.impl("hidden", lambda x: x @ x, "CompositeImplicitAutograd")
    model = nn.Sequential(Calls(torch.ops.partialsum_test.hidden))
    x = torch.randn(4, 4)
    with torch.no_grad():
        with (
            ps.emulate(model, NARROW),
            pytest.raises(ps.InputError, match="layer '0' runs aten::mm, a GEMM inside"),
        ):
            model(x)
        with ps.emulate(model, NARROW, on_unsupported="list") as handle:
            assert torch.equal(model(x), x @ x)
            assert handle.unsupported == (("0", "aten::mm"),)


def test_the_handle() -> None:
    model = small()
    handle = ps.emulate(model, ps.Policy(name="narrow"))
    assert handle.policy.name == "narrow"
    assert repr(handle) == "Emulation(Sequential, policy='narrow')"
    model(torch.randn(2, 8))
    model.eval()(torch.randn(2, 8))
    assert handle.state_dict() == {"train": 1, "eval": 1}
    found = emulation_of(model)
    assert found is not None
    assert found.state_dict() == handle.state_dict()
    with pytest.raises(ps.InputError, match="state must hold the integers train, eval"):
        handle.load_state_dict({"train": 1})
    handle.restore()
    assert emulation_of(model) is None


def test_random_bits_follow_seed_call_and_pass() -> None:
    model, x = small(), torch.randn(16, 8)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(x).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    with ps.emulate(model, NOISY) as handle:
        first, second = gradients(), gradients()
        assert not torch.equal(first[0], second[0])
        saved = handle.state_dict()
        third = gradients()
        handle.load_state_dict(saved)
        assert all(map(torch.equal, gradients(), third))
    with ps.emulate(model, NOISY):
        model.eval()(x)
        model.train()
        assert all(map(torch.equal, gradients(), first))  # evaluation in between draws bits of its own
    with ps.emulate(model, NOISY.with_seed(6)):
        assert not torch.equal(gradients()[0], first[0])


def test_under_torch_compile_emulation_runs_eagerly_and_says_so() -> None:
    model, x = small(), torch.randn(3, 8)
    ps.emulate(model, NARROW)
    expected = model(x)
    compiled = torch.compile(model, backend="eager")
    with pytest.warns(UserWarning, match="torch.compile cannot trace the GEMMs of an emulated model"):
        out = compiled(x)
    assert torch.equal(out, expected)


def test_inference_mode() -> None:
    model, x = small(), torch.randn(3, 8)
    ps.emulate(model, NARROW)
    expected = model(x)
    with torch.inference_mode():
        assert torch.equal(model(x), expected)
    with torch.no_grad():
        assert torch.equal(model(x), expected)
