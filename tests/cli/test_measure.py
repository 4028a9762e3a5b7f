"""The measure run: documents, files that other commands read, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import partialsum as ps
from commands import Run

SHORT = ("--batches", "2", "--batch", "16", "--man-bits", "5,8", "--samples", "60")


def test_json_density_and_policy_go_on_from_here(run: Run, tmp_path: Path) -> None:
    density, policy = tmp_path / "density.csv", tmp_path / "policy.toml"
    files = ("--density-file", str(density), "--policy-file", str(policy))
    result = run(
        "measure", "convnet", "--data", "digits", *SHORT, *files, "--json", "--pieces", "9", "--target", "snr=30"
    )
    assert result.returncode == 0, result.stderr
    assert "batch 2 of 2" in result.stderr
    answer = json.loads(result.stdout)
    assert (answer["schema"], answer["batches"]) == ("partialsum/measurements/1", 2)
    assert answer["accumulators"][:3] == ["e8m5", "e8m8", "e8m5,chunk=64"]
    assert {gemm["pass"] for gemm in answer["gemms"]} == {"forward", "grad_input", "grad_weight"}
    first = answer["gemms"][0]
    assert (first["layer"], first["k"], len(first["quality"])) == ("convs.0", 9, 8)
    assert first["quality"][1]["snr_db"] > first["quality"][0]["snr_db"] > 0
    assert ps.PiecewiseLaw.from_dict(first["pieces"]).k == 9
    assert density.read_text(encoding="utf-8").splitlines()[0] == "layer,pass,density"
    assert f"convs.0,forward,{first['density']!r}" in density.read_text(encoding="utf-8")
    record = ps.Policy.from_toml(policy)
    assert record.plan("convs.0").forward in (ps.parse_accumulator("e8m5"), ps.parse_accumulator("e8m8"))


def test_a_built_in_network_without_data_runs_forward_on_random_numbers(run: Run) -> None:
    result = run("measure", "resnet20-cifar10", "--batches", "1", "--batch", "2", "--man-bits", "6", "--csv")
    assert result.returncode == 0, result.stderr
    assert "only the forward pass is measured" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("layer,pass,m,n,k,count,density,kappa,path,accumulator,vrr,vrr_margin")
    assert len(lines) == 1 + 4 * 20  # 20 layers with weights, four accumulators
    assert not [line for line in lines if ",grad_" in line]


def test_the_table_the_page_and_a_checkpoint(run: Run, tmp_path: Path) -> None:
    from partialsum.experiments.config import ModelConfig
    from partialsum.experiments.data import load_dataset
    from partialsum.experiments.models import build_model

    model = build_model(ModelConfig(name="mlp", width=16), load_dataset("digits"))
    weights = tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    page = tmp_path / "page.html"
    shape = ("measure", "mlp", "--data", "digits", "--checkpoint", str(weights))
    result = run(*shape, "--width", "16", *SHORT, "--html", str(page), "--forward-only")
    assert result.returncode == 0, result.stderr
    for words in ("hidden.1", "predicted db", "swamps first", "readout"):
        assert words in result.stdout
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "Predicted against measured" in text
    assert "hidden.1" in text
    assert "<image" not in text  # pictures in a figure would need what the page's policy forbids
    wrong = run(*shape, "--width", "8", *SHORT)
    assert wrong.returncode == 2
    assert f"cannot load checkpoint '{weights}'" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reznet",), "unknown network 'reznet'; did you mean 'resnet'"),
        (("resnet",), "takes its shape from data, of which none is named; give --data"),
        (("convnet", "--data", "digitz"), "data must be one of"),
        (("convnet", "--data", "digits", "--man-bits", "4..9"), "--man-bits must read like 4-14 or 5,7,9"),
        (("convnet", "--data", "digits", "--target", "snr"), "target must read like snr=20"),
        (("convnet", "--data", "digits", "--json", "--csv"), "give either --json or --csv, not both"),
        (("convnet", "--data", "digits", "--html", "/nowhere/x.html"), "the folder '/nowhere' does not exist"),
        (("convnet", "--data", "digits", "--policy", "/nowhere/p.toml"), "cannot read policy file"),
        (("convnet", "--data", "digits", "--inputs", "mxfp4"), "inputs must be a format of single numbers"),
        ((".", "--data", "digits"), "reads text: give --data text --data-path FILE"),
    ],
)
def test_wrong_use_ends_in_one_sentence(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("measure", *arguments, "--batches", "1")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_images_are_brought_to_what_a_built_in_network_takes(run: Run) -> None:
    result = run("measure", "resnet20-cifar10", "--data", "digits", *SHORT, "--forward-only", "--json")
    assert result.returncode == 0, result.stderr
    assert "are brought to 3x32x32" in result.stderr
    assert json.loads(result.stdout)["gemms"][0]["k"] == 27


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("gpt2", "--data", "digits"),
            "network 'gpt2' takes tokens, but data 'digits' holds images; name other data",
        ),
        (("config.json",), "'config.json' describes a network but does not run it"),
        (("absent.onnx",), "cannot run 'absent.onnx'"),
    ],
)
def test_data_and_files_that_do_not_fit(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("measure", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_matrix_units_and_a_focus(run: Run) -> None:
    named = run("measure", "mlp", "--data", "digits", *SHORT, "--accumulator", "h100-fp8")
    assert named.returncode == 0, named.stderr
    assert "With h100-fp8," in named.stdout
    focused = run("measure", "mlp", "--data", "digits", *SHORT, "--focus", "--target", "snr=30", "--json")
    assert json.loads(focused.stdout)["settings"]["focus"] == "snr=30"
