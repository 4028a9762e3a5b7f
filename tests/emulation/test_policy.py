"""Policies: what they accept, what they refuse and why, and that TOML loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import partialsum as ps
from partialsum.emulation.operands import Roles, parse_operand

PASSES = (ps.Pass.FORWARD, ps.Pass.GRAD_INPUT, ps.Pass.GRAD_WEIGHT)


def test_names_become_records() -> None:
    policy = ps.Policy(forward="e6m9", grad_weight="h100-fp8", inputs="e5m2")
    assert policy.forward == ps.Accumulator(ps.FloatFormat(6, 9))
    assert policy.grad_weight == ps.ACCUMULATORS["h100-fp8"]
    assert policy.inputs.get(ps.Pass.FORWARD, ps.Role.WEIGHT) == ps.OperandFormat(ps.FloatFormat(5, 2))


def test_an_empty_policy_is_float32() -> None:
    plan = ps.Policy().plan("anything")
    assert all(plan.accumulator(pass_) == ps.Accumulator(ps.FloatFormat(8, 23)) for pass_ in PASSES)
    assert all(plan.operand(pass_, role) is None for pass_ in PASSES for role in ps.Role)
    assert plan.emulate


def test_repr_is_constructor_text() -> None:
    policy = ps.Policy(forward="e6m9,chunk=64", inputs={"gradient": "e5m2,stochastic"}, layers={"a*": "e6m4"})
    names = vars(ps) | {name: getattr(ps, name) for name in ps.__all__} | {"Roles": Roles}
    assert eval(repr(policy), names) == policy


def test_roles_and_passes() -> None:
    policy = ps.Policy(
        inputs={"activation": "e4m3", "weight": "e4m3", "gradient": "e5m2", "grad_weight": {"activation": "fp16"}}
    )
    plan = policy.plan("fc")
    assert str(plan.operand(ps.Pass.FORWARD, ps.Role.ACTIVATION)) == "e4m3"
    assert str(plan.operand(ps.Pass.GRAD_WEIGHT, ps.Role.ACTIVATION)) == "fp16"
    assert str(plan.operand(ps.Pass.GRAD_INPUT, ps.Role.GRADIENT)) == "e5m2"


def test_rules_stack_from_the_general_to_the_particular() -> None:
    policy = ps.Policy(
        forward="e6m3",
        inputs="e5m2",
        first="e6m9",
        last={"inputs": "fp16"},
        layers={"block.*": {"forward": "e6m5"}, "block.1": {"inputs": {"weight": "fp32"}}, "head": "e6m7"},
    )
    assert str(policy.plan("stem", first=True).forward) == "e6m9"
    assert str(policy.plan("block.0").forward) == "e6m5"
    assert str(policy.plan("block.1").forward) == "e6m5"
    assert str(policy.plan("block.1").operand(ps.Pass.FORWARD, ps.Role.WEIGHT)) == "fp32"
    assert str(policy.plan("block.1").operand(ps.Pass.FORWARD, ps.Role.ACTIVATION)) == "e5m2"
    head = policy.plan("head", last=True)
    assert str(head.forward) == "e6m7"
    assert str(head.operand(ps.Pass.GRAD_INPUT, ps.Role.GRADIENT)) == "fp16"
    assert str(policy.plan("other").forward) == "e6m3"


def test_a_rule_says_only_what_it_says() -> None:
    policy = ps.Policy(layers={"a*": {"emulate": False}, "ab": {"forward": "e6m4"}, "abc": {"emulate": True}})
    assert not policy.plan("ab").emulate
    assert policy.plan("abc").emulate
    assert policy.plan("x", "ab").forward == ps.parse_accumulator("e6m4")  # a pattern fits any of a layer's names


def test_the_common_chunk_goes_where_there_is_none() -> None:
    policy = ps.Policy("e6m9", "e6m9,chunk=16", "h100-fp8", chunk=64)
    plan = policy.plan("x")
    assert plan.forward == ps.parse_accumulator("e6m9,chunk=64")
    assert plan.grad_input == ps.parse_accumulator("e6m9,chunk=16")
    assert plan.grad_weight == ps.ACCUMULATORS["h100-fp8"]


def test_outputs_per_pass() -> None:
    plan = ps.Policy(outputs={"forward": "q6.10,stochastic"}, layers={"a": {"outputs": "q2.14"}}).plan("b")
    assert str(plan.output(ps.Pass.FORWARD)) == "q6.10,stochastic"
    assert plan.output(ps.Pass.GRAD_WEIGHT) is None


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"forward": "e6m9x"}, "unknown accumulator|unknown format"),
        ({"inputs": "e5m"}, "unknown format 'e5m'"),
        ({"inputs": {"activations": "e5m2"}}, "unknown key 'activations' in inputs; did you mean 'activation'"),
        ({"inputs": {"forward": {"wait": "e5m2"}}}, "unknown key 'wait' in inputs.forward"),
        ({"inputs": "e5m2,neerest_even"}, "unknown option 'neerest_even' .* did you mean 'nearest_even'"),
        ({"inputs": "mxfp4,scale=tensor"}, "scale='tensor' does not fit mxfp4"),
        ({"inputs": "e5m2,scale=sawb"}, "scale='sawb' needs an integer format such as 'int4', got e5m2"),
        ({"inputs": "int6,scale=sawb"}, "published for 2, 3, 4, 5, 8 bits, got int6"),
        ({"inputs": "e5m2,scale=tenser"}, "scale must be one of"),
        ({"outputs": "mxfp8_e4m3"}, "outputs.forward takes a format without blocks"),
        ({"outputs": {"backward": "e5m2"}}, "unknown key 'backward' in outputs"),
        ({"layers": {"fc": {"forwards": "e6m9"}}}, "unknown key 'forwards' in layers.'fc'; did you mean 'forward'"),
        ({"layers": {"fc": {"emulate": "no"}}}, "emulate must be true or false, got 'no'"),
        ({"layers": (("a", "e6m9"), ("a", "e6m8"))}, "must name each pattern once, got 'a' 2 times"),
        ({"chunk": 0}, "chunk must be a positive integer, got 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 2\\*\\*64 - 1, got -1"),
        ({"on_unsupported": "warn"}, "on_unsupported must be one of error, list, got 'warn'"),
        ({"name": 3}, "name must be a string, got 3"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ps.InputError, match=message) as caught:
        ps.Policy(**settings_)
    assert "\n" not in str(caught.value)


def test_a_layer_that_does_not_exist() -> None:
    policy = ps.Policy(layers={"conv*": "e6m9", "fc3": "e6m9"})
    with pytest.raises(ps.InputError, match="names layer 'fc3', which the model does not have; did you mean 'fc1'"):
        policy.check_layers(["conv1", "conv2", "fc1"])
    policy.check_layers(["conv1", "fc3"])


TEXT = """
name = "hybrid"
forward = "e6m9"
grad_weight = "h100-fp8,promote_every=128"
chunk = 64
seed = 7

[inputs]
activation = "e4m3"
weight = "e4m3"
gradient = "e5m2"

[inputs.grad_weight]
activation = "fp16"

[first]
inputs = "fp16"

[layers."block.*.fc"]
forward = { kind = "aligned", fraction_bits = 13, group = 32, result = "e8m13" }

[layers.head]
emulate = false
"""


def test_toml_reads_what_it_says() -> None:
    policy = ps.Policy.from_toml(TEXT)
    assert policy.name == "hybrid"
    assert policy.seed == 7
    assert policy.grad_weight == ps.parse_accumulator("h100-fp8,promote_every=128")
    assert policy.plan("block.3.fc").forward == ps.AlignedAccumulator(13, 32, result=ps.FloatFormat(8, 13))
    assert not policy.plan("head").emulate
    assert str(policy.plan("stem", first=True).operand(ps.Pass.FORWARD, ps.Role.ACTIVATION)) == "fp16"
    assert ps.Policy.from_toml(policy.to_toml()) == policy


def test_toml_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(TEXT)
    assert ps.Policy.from_toml(path) == ps.Policy.from_toml(TEXT)
    with pytest.raises(ps.InputError, match=r"cannot read policy file .*missing\.toml"):
        ps.Policy.from_toml(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forward = ", "not valid TOML"),
        ('forwrd = "e6m9"', "unknown key 'forwrd' in the policy; did you mean 'forward'"),
        ("layers = 3", "layers must be a table"),
        ('[layers.fc]\nfoward = "e6m9"', "unknown key 'foward' in layers.'fc'; did you mean 'forward'"),
        ("[inputs]\nweight = { rounding = 'stochastic' }", "inputs.weight needs a format"),
        ("[inputs]\nweight = { format = { element = 'e2m1' } }", "needs element and block"),
        ("forward = { kind = 'alined' }", "kind of forward must be one of sequential, aligned, dot, integer"),
        ("forward = { kind = 'aligned' }", "accumulator forward is incomplete"),
        ("forward = { format = 'e6m9', chnk = 4 }", "unknown key 'chnk' in forward; did you mean 'chunk'"),
    ],
)
def test_toml_that_means_nothing(text: str, message: str) -> None:
    with pytest.raises(ps.InputError, match=message):
        ps.Policy.from_toml(text)


def operands() -> st.SearchStrategy[ps.OperandFormat]:
    custom_block = ps.BlockFormat(ps.FloatFormat(3, 2), 8, scale=ps.FloatFormat(4, 3))
    plain = st.sampled_from(["e5m2", "q4.12,stochastic", "mxfp8_e4m3", "nvfp4,stochastic", "bf16,infinity"])
    scaled = st.sampled_from(["e4m3fn,scale=tensor", "int4,scale=sawb", "uint2,scale=learned"])
    return st.one_of(plain.map(parse_operand), scaled.map(parse_operand), st.just(ps.OperandFormat(custom_block)))


def some_accumulators() -> st.SearchStrategy[Any]:
    sequential = st.builds(
        ps.Accumulator,
        st.builds(ps.FloatFormat, st.integers(3, 8), st.integers(1, 20)),
        st.sampled_from(list(ps.Rounding)),
        st.none() | st.integers(1, 512),
    )
    aligned = st.builds(ps.AlignedAccumulator, st.integers(8, 30), st.sampled_from([4, 16, 32]))
    integer = st.builds(ps.IntegerAccumulator, st.integers(2, 48), st.sampled_from(["wrap", "saturate"]))
    return st.one_of(sequential, aligned, integer, st.sampled_from(list(ps.ACCUMULATORS.values())))


def inputs() -> st.SearchStrategy[ps.Inputs]:
    roles = st.builds(Roles, *[st.none() | operands()] * 3)
    return st.builds(ps.Inputs, *[st.none() | operands()] * 3, roles, roles, roles)


def rules() -> st.SearchStrategy[ps.LayerRule]:
    outputs = st.builds(ps.Outputs, st.none() | st.sampled_from(["q6.10,stochastic", "bf16"]))
    return st.builds(ps.LayerRule, *[st.none() | some_accumulators()] * 3, inputs(), outputs, st.booleans())


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        ps.Policy,
        *[some_accumulators()] * 3,
        inputs(),
        layers=st.dictionaries(st.text(min_size=1), rules(), max_size=3),
        first=st.none() | rules(),
        last=st.none() | rules(),
        chunk=st.none() | st.integers(1, 4096),
        seed=st.integers(0, 2**64 - 1),
        on_unsupported=st.sampled_from(["error", "list"]),
        name=st.text(),
    )
)
def test_toml_there_and_back(policy: ps.Policy) -> None:
    assert ps.Policy.from_toml(policy.to_toml()) == policy
