"""The script that runs a trained language model under narrow accumulators, on runs whose knee is known."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partialsum.accumulators import parse_accumulator
from partialsum.errors import InputError

PATH = Path(__file__).parents[2] / "experiments" / "perplexity.py"


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("perplexity", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["perplexity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


class Scores:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Bigram(nn.Module):
    """Scores of the next token from one linear layer, as a Hugging Face model gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 256)
        self.readout = nn.Linear(256, 16, bias=False)

    def forward(self, input_ids: Tensor) -> Scores:
        return Scores(self.readout(self.embedding(input_ids)))


def run(bits: int, loss: float, rounding: str = "nearest_even", chunk: int = 0) -> tuple[str, dict[str, Any]]:
    member = SCRIPT.sweep_member(bits, rounding, chunk)
    losses = torch.full((1, 4), loss)
    return member.key, SCRIPT.row(member, losses, torch.zeros(1, 4), [0, 0, 1, 0], 1.0)


def test_every_configuration_is_another_accumulator() -> None:
    planned = list(SCRIPT.configurations())
    assert len({each.key for each in planned}) == len(planned)
    for each in planned[1:]:
        accumulator = parse_accumulator(each.accumulator)
        if each.man_bits is not None:
            assert (accumulator.man_bits, accumulator.chunk or 0) == (each.man_bits, each.chunk)
            assert accumulator.rounding == each.rounding


def test_the_knee_is_the_narrowest_width_below_which_loss_is_gained() -> None:
    runs = dict([run(23, 4.0), run(8, 4.01), run(7, 4.04), run(6, 4.2), run(5, 4.0), run(8, 9.0, "toward_zero")])
    found = {(each["rounding"], each["chunk"]): each["found"] for each in SCRIPT.knees(runs)}
    assert found["nearest_even", 0] == 7  # 5 is luck: 6 already fails
    assert found["toward_zero", 0] is None


def test_a_loss_that_is_no_number_is_no_perplexity() -> None:
    _, broken = run(4, math.nan)
    assert broken["loss"] is None
    assert broken["perplexity"] is None
    json.dumps(broken, allow_nan=False)


def test_loss_gained_is_paired_token_by_token() -> None:
    _, base = run(23, 4.0)
    _, narrow = run(5, 4.5)
    narrow["token_losses"] = [4.0, 4.5, 4.5, 5.0]
    mean, error = SCRIPT.gained(narrow, base)
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(math.sqrt(0.5 / 3) / 2)
    assert narrow["same_choice"] == 0.75


def test_losses_are_torchs_in_a_wide_accumulator_and_others_in_a_narrow_one() -> None:
    torch.manual_seed(0)
    model, tokens = Bigram(), torch.randint(0, 16, (2, 9))
    plain, chosen = SCRIPT.losses(model, tokens, SCRIPT.Configuration("", ""))
    assert plain.shape == chosen.shape == (2, 8)
    expected = nn.functional.cross_entropy(model(tokens).logits[1, 4], tokens[1, 5])
    torch.testing.assert_close(plain[1, 4], expected.detach())
    wide, _ = SCRIPT.losses(model, tokens, SCRIPT.Configuration("e8m23", ""))
    torch.testing.assert_close(wide, plain)
    narrow, _ = SCRIPT.losses(model, tokens, SCRIPT.Configuration("e8m3,toward_zero", ""))
    assert (narrow - plain).abs().max() > 0.1


def test_results_of_other_data_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    key, entry = run(8, 4.0)
    path.write_text(json.dumps({"data": {"text": "a"}, "runs": [entry]}))
    assert SCRIPT.opened(path, {"text": "a"}) == {key: entry}
    with pytest.raises(InputError, match="were made from other data"):
        SCRIPT.opened(path, {"text": "b"})
