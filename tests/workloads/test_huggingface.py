"""Hugging Face configs: every layer of small models, experts, and the large one that must need no memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from partialsum.errors import InputError
from partialsum.workloads.gemm import Gemm, Pass, Workload
from partialsum.workloads.load import load_workload
from workloads.truth import macs, products_of, products_of_a_real_step

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA = SMALL | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MIXTRAL = SMALL | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
QWEN_MOE = SMALL | {
    "model_type": "qwen3_moe",
    "head_dim": 8,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 24,
}
LLAMA4 = SMALL | {
    "model_type": "llama4_text",
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "intermediate_size_mlp": 48,
    "interleave_moe_layer_step": 1,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 64}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
BERT = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"} | {"model_type": "bert"}
VIT = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 10,
}
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 100}


def read(tmp_path: Path, config: dict[str, Any], **options: Any) -> Workload:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return load_workload(path, **options)


def forward(workload: Workload) -> dict[str, tuple[int, int, int, int]]:
    return {g.layer: (g.m, g.n, g.k, g.count) for g in workload.gemms if g.pass_ is Pass.FORWARD}


def lengths(workload: Workload, layer: str) -> list[tuple[str, int, int]]:
    return [(str(g.pass_), g.k, g.count) for g in workload.gemms if g.layer == layer]


def test_llama_with_grouped_queries(tmp_path: Path) -> None:
    workload = read(tmp_path, LLAMA, batch=3, seq=10)
    block = {
        "self_attn.q_proj": (30, 32, 32, 1),
        "self_attn.k_proj": (30, 16, 32, 1),
        "self_attn.v_proj": (30, 16, 32, 1),
        "self_attn.scores": (10, 10, 8, 12),
        "self_attn.values": (10, 8, 10, 12),
        "self_attn.o_proj": (30, 32, 32, 1),
        "mlp.gate_proj": (30, 48, 32, 1),
        "mlp.up_proj": (30, 48, 32, 1),
        "mlp.down_proj": (30, 32, 48, 1),
    }
    golden = {f"model.layers.{layer}.{name}": shape for layer in (0, 1) for name, shape in block.items()}
    assert forward(workload) == golden | {"lm_head": (30, 100, 32, 1)}
    assert workload.batch == 3
    assert workload.name == tmp_path.name
    assert workload.unanalysed == ()
    assert workload.notes[0] == "LlamaForCausalLM: batch 3, sequence 10"
    three = [("forward", 32, 1), ("grad_input", 32, 1), ("grad_weight", 30, 1)]
    assert lengths(workload, "model.layers.0.self_attn.q_proj") == three


@pytest.mark.parametrize("config", [LLAMA, GPT2, BERT], ids=["llama", "gpt2", "bert"])
def test_the_products_are_those_of_a_real_training_step(config: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    workload = read(tmp_path, config, batch=2, seq=12)
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict({**config, "use_cache": False})
    model_class = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM"}
    model = getattr(transformers, model_class[config["model_type"]])(made).eval()

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        result = model(tokens).logits
        assert isinstance(result, torch.Tensor)
        return result

    expected = products_of_a_real_step(logits, torch.zeros(2, 12, dtype=torch.long))
    outer = Counter({key: count for key, count in expected.items() if key[1] == 1})  # angles of rotary positions
    assert products_of(workload.gemms) == expected - outer


def test_mixtral_experts_get_their_expected_share(tmp_path: Path) -> None:
    workload = read(tmp_path, MIXTRAL, batch=4, seq=16)
    share = 4 * 16 * 2 // 8
    shapes = forward(workload)
    assert shapes["model.layers.1.mlp.experts.gate_up_proj"] == (share, 96, 32, 8)
    assert shapes["model.layers.1.mlp.experts.down_proj"] == (share, 32, 48, 8)
    assert shapes["model.layers.1.mlp.gate"] == (64, 8, 32, 1)
    assert lengths(workload, "model.layers.1.mlp.experts.down_proj") == [
        ("forward", 48, 8),
        ("grad_input", 32, 8),
        ("grad_weight", share, 8),
    ]
    notes = {g.note for g in workload.gemms if "experts" in g.layer}
    assert notes == {"expects 16 rows per expert: 128 (tokens times experts per token) spread evenly over 8"}
    assert any(note.startswith("experts: each is given the expected share") for note in workload.notes)


def test_qwen_experts_and_heads_of_their_own_size(tmp_path: Path) -> None:
    shapes = forward(read(tmp_path, QWEN_MOE, batch=1, seq=8))
    assert shapes["model.layers.0.mlp.experts.gate_up_proj"] == (2, 48, 32, 16)
    assert shapes["model.layers.0.self_attn.scores"] == (8, 8, 8, 4)


def test_experts_that_the_model_runs_on_all_tokens_are_scaled_alike(tmp_path: Path) -> None:
    workload = read(tmp_path, LLAMA4, batch=2, seq=32)
    assert forward(workload)["model.layers.0.feed_forward.experts.gate_up_proj"] == (16, 96, 32, 4)
    assert lengths(workload, "model.layers.0.feed_forward.experts.down_proj") == [
        ("forward", 48, 4),
        ("grad_input", 32, 4),
        ("grad_weight", 16, 4),
    ]
    assert forward(workload)["model.layers.0.feed_forward.shared_expert.up_proj"][0] == 64
    note = next(g.note for g in workload.gemms if g.layer.endswith("experts.down_proj"))
    assert note == "expects 16 of 64 tokens per expert (1 of 4 experts per token)"


def test_more_experts_than_rows(tmp_path: Path) -> None:
    shapes = forward(read(tmp_path, QWEN_MOE, batch=1, seq=2))
    assert shapes["model.layers.0.mlp.experts.down_proj"] == (1, 32, 24, 8)


def test_gpt2_ties_its_head_and_reads_both_embeddings(tmp_path: Path) -> None:
    workload = read(tmp_path, GPT2, batch=2)
    assert workload.layers[0] == "transformer.h.0.attn.c_attn"
    assert workload.layers[-1] == "lm_head"
    assert lengths(workload, "lm_head") == [("forward", 32, 1), ("grad_input", 100, 1), ("grad_weight", 128, 1)]
    assert lengths(workload, "transformer.h.0.attn.c_attn")[1] == ("grad_input", 96, 1)
    assert workload.notes[0] == "GPT2LMHeadModel: batch 2, sequence 64"


def test_vision_model_reads_pictures(tmp_path: Path) -> None:
    workload = read(tmp_path, VIT, batch=5)
    first = [g for g in workload.gemms if g.layer == workload.layers[0]]
    assert [(str(g.pass_), g.k) for g in first] == [("forward", 3 * 64), ("grad_weight", 5 * 16)]
    assert workload.notes[0] == "ViTForImageClassification: batch 5; pixel_values of 3x32x32"
    with pytest.raises(InputError, match=r"seq is given \(7\), but ViTForImageClassification reads no tokens"):
        read(tmp_path, VIT, seq=7)


def test_encoder_decoder_runs_both_halves(tmp_path: Path) -> None:
    layers = read(tmp_path, T5, batch=2, seq=9).layers
    assert any(name.startswith("encoder.") for name in layers)
    cross = [name for name in layers if name.startswith("decoder.") and "EncDecAttention" in name]
    assert {name.rsplit(".", 1)[1] for name in cross} == {"q", "k", "v", "o", "scores", "values"}


def test_defaults_of_batch_and_sequence(tmp_path: Path) -> None:
    assert read(tmp_path, BERT).notes[0] == "BertForMaskedLM: batch 8, sequence 64"
    assert read(tmp_path, VIT).batch == 256
    long = read(tmp_path, LLAMA | {"max_position_embeddings": 131072}, batch=1)
    assert long.notes[0].endswith("sequence 4096")
    assert "beyond the 64 positions of the config" in read(tmp_path, LLAMA, batch=1, seq=100).notes[0]


def test_published_size_of_gpt2(tmp_path: Path) -> None:
    workload = read(tmp_path, {"model_type": "gpt2"}, batch=1)
    work: dict[Pass, int] = dict.fromkeys(Pass, 0)
    for gemm in workload.gemms:
        work[gemm.pass_] += macs(gemm)
    weights = 12 * (12 * 768 * 768) + 50257 * 768
    attention = 12 * 2 * 1024 * 1024 * 768
    assert work == {
        Pass.FORWARD: 1024 * weights + attention,
        Pass.GRAD_INPUT: 1024 * weights + 2 * attention,
        Pass.GRAD_WEIGHT: 1024 * weights,
    }


BAD = {
    "broken value": (LLAMA | {"hidden_size": "many"}, r"config.json: .*hidden_size"),
    "no heads": (LLAMA | {"num_attention_heads": 0}, r"config.json: ZeroDivisionError"),
    "no such activation": (
        LLAMA | {"hidden_act": "gello"},
        r"LlamaForCausalLM cannot be built from this config: KeyError",
    ),
    "unknown": ({"model_type": "mixtrall"}, r"model type 'mixtrall' is not known .* did you mean 'mixtral'"),
    "own code": ({"model_type": "mine", "auto_map": {"AutoModel": "m.M"}}, r"a model's own code is not run"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configs(name: str, tmp_path: Path) -> None:
    config, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, config)
    assert "\n" not in str(caught.value)


def test_missing_package_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    with pytest.raises(InputError, match=r"needs transformers .* pip install 'partialsum\[hf\]'"):
        read(tmp_path, LLAMA)


EIGHT_BILLION = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}

# Not ru_maxrss: that of a new process begins with its parent's.
MEASURE = """
import re, sys
from pathlib import Path
from partialsum.workloads.load import load_workload
workload = load_workload(sys.argv[1], batch=1, seq=4096)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(workload.layers), max(g.k for g in workload.gemms), peak[1])
"""


def test_eight_billion_weights_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(EIGHT_BILLION))
    result = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    layers, longest, kilobytes = map(int, result.stdout.split())
    assert layers == 32 * 9 + 1
    assert longest == 128256
    assert kilobytes * 1024 < 2e9


def test_records_stay_plain(tmp_path: Path) -> None:
    for gemm in read(tmp_path, MIXTRAL, batch=1, seq=4).gemms:
        assert isinstance(gemm, Gemm)
        assert all(type(size) is int for size in (gemm.m, gemm.n, gemm.k, gemm.count))
