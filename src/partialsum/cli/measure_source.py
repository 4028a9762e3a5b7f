"""Models that run and data to run them on, for ``partialsum measure``."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from partialsum.errors import InputError, did_you_mean
from partialsum.experiments.config import ModelConfig
from partialsum.experiments.data import Dataset, batches as endless, load_dataset
from partialsum.experiments.models import MODELS, build_model
from partialsum.workloads.user_code import load_callable
from partialsum.workloads.zoo import NETWORKS

Batches = Callable[[bool], Iterator[Any]]


@dataclass(frozen=True)
class Source:
    """A model, its batches, and the loss of (output, target) where a batch ends in a target."""

    model: nn.Module
    make: Batches
    loss: Callable[[Any, Tensor], Tensor] | None

    def batches(self, count: int, *, gradients: bool) -> Iterator[Any]:
        """Yield ``count`` batches, without their targets unless gradients are wanted."""
        return itertools.islice(self.make(gradients), count)


def open_source(
    target: str,
    data: str | None,
    path: Path | None,
    checkpoint: Path | None,
    shape: ModelConfig,
    *,
    batch: int,
    seq: int,
    seed: int,
) -> Source:
    """Return the model that ``target`` names, with its weights, and its data.

    Raises :class:`InputError` for what cannot be found, and for data that does not fit the model.
    """
    torch.manual_seed(seed)
    folder = Path(target)
    if folder.is_dir() or folder.suffix == ".gguf":
        source = _language_model(folder, data, path, batch, seq, seed)
    elif folder.suffix == ".onnx":
        source = _onnx_file(folder, data, path, batch, seed)
    else:
        dataset = None if data is None else load_dataset(data, path, context=seq)
        model, example = _model(target, dataset, shape, batch, seq)
        fit = None if dataset is None or target.lower() not in NETWORKS else _fitted(dataset, example, target)
        source = Source(
            model, _dataset_batches(dataset, example, batch, seed, fit), None if dataset is None else _loss
        )
    if checkpoint is not None:
        _load(source.model, checkpoint)
    return source


def _loss(scores: Any, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def _model(target: str, data: Dataset | None, shape: ModelConfig, batch: int, seq: int) -> tuple[nn.Module, Any]:
    if target.lower() in NETWORKS:
        network = NETWORKS[target.lower()]
        sizes = network.example_inputs(batch, seq if network.sequence else None)
        options = {} if data is None or network.sequence else {"num_classes": data.classes}
        return network.build(**options).train(), _random(sizes)
    if target in MODELS:
        if data is None:
            raise InputError(f"model {target!r} takes its shape from data, of which none is named; give --data")
        return build_model(replace(shape, name=target), data).train(), None
    if ":" in target:
        with contextlib.redirect_stdout(sys.stderr):
            return load_callable(target, fake=False)
    if Path(target).suffix.lower() in {".json", ".csv", ".toml"}:
        raise InputError(
            f"{target!r} describes a network but does not run it: measure needs a built-in network, an .onnx file, a "
            "folder (or .gguf file) with a Hugging Face model and its weights, or package.module:callable"
        )
    known = [*NETWORKS, *MODELS]
    raise InputError(
        f"unknown network {target!r}{did_you_mean(target, known)} (known: {', '.join(known)}; or give a folder with a "
        "Hugging Face model, or package.module:callable)"
    )


def _random(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(x.shape) if x.is_floating_point() else torch.randint(0, 256, x.shape) for x in inputs)


def _fitted(data: Dataset, example: tuple[Tensor, ...], target: str) -> Callable[[Tensor], Tensor] | None:
    """Return what brings images to the channels and the size that a built-in network was made for; None: nothing."""
    want, have = example[0], data.example(1)
    if want.is_floating_point() != have.is_floating_point() or want.dim() != have.dim():
        kinds = ["tokens", "images"]
        raise InputError(
            f"network {target!r} takes {kinds[want.is_floating_point()]}, but data {data.name!r} holds "
            f"{kinds[have.is_floating_point()]}; name other data"
        )
    if not want.is_floating_point() or want.shape[1:] == have.shape[1:]:
        return None
    channels, *size = want.shape[1:]
    if have.shape[1] not in (1, channels):
        raise InputError(
            f"network {target!r} takes {channels} channels, but data {data.name!r} has {have.shape[1]}; name other data"
        )
    sizes = ("x".join(map(str, x.shape[1:])) for x in (have, want))
    print("images of {} are brought to {}".format(*sizes), file=sys.stderr)

    def fit(x: Tensor) -> Tensor:
        scaled = nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        return scaled.expand(-1, channels, -1, -1).contiguous()

    return fit


def _dataset_batches(
    data: Dataset | None, example: Any, batch: int, seed: int, fit: Callable[[Tensor], Tensor] | None
) -> Batches:
    def make(gradients: bool) -> Iterator[Any]:
        if data is None:
            if gradients:
                print("no data, no loss: only the forward pass is measured", file=sys.stderr)
            while True:
                yield example
        for inputs, y in endless(data.train, batch, seed=seed):
            x = inputs if fit is None else fit(inputs)
            yield (x, y) if gradients else x

    return make


def _onnx_file(file: Path, data: str | None, path: Path | None, batch: int, seed: int) -> Source:
    """Return the network of an ONNX file, which runs forward only."""
    from partialsum.workloads.onnx_run import OnnxNetwork

    model = OnnxNetwork(file)
    print("an ONNX file runs forward only: no gradients are measured", file=sys.stderr)
    if model.unwatched:
        print(f"not measured: {', '.join(model.unwatched)}", file=sys.stderr)
    example = model.example_inputs(batch)
    dataset = None if data is None else load_dataset(data, path)
    fit = None if dataset is None else _fitted(dataset, example, str(file))
    make = _dataset_batches(dataset, example, len(example[0]), seed, fit)
    return Source(model, lambda _: make(False), None)


def _language_model(folder: Path, data: str | None, path: Path | None, batch: int, seq: int, seed: int) -> Source:
    """Return a Hugging Face model with its own weights and tokens of a text."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise InputError(
            f"a Hugging Face model needs transformers ({error}); pip install 'partialsum[hf]' brings it"
        ) from None
    if data != "text" or path is None:
        raise InputError(f"model {str(folder)!r} reads text: give --data text --data-path FILE")
    where, options = (folder.parent, {"gguf_file": folder.name}) if folder.suffix == ".gguf" else (folder, {})
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the text {str(path)!r}: {error}") from None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, local_files_only=True, **options)
        model = AutoModelForCausalLM.from_pretrained(
            where, local_files_only=True, dtype=torch.float32, **options
        ).train()
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"no Hugging Face model with weights and tokenizer in {str(folder)!r}: {reason}") from None
    tokens = torch.tensor(tokenizer(text)["input_ids"])
    if len(tokens) <= seq:
        raise InputError(f"text {str(path)!r} has {len(tokens)} tokens, too few for --seq {seq}")

    def make(gradients: bool) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(0, len(tokens) - seq, (batch, 1), generator=generator)
            ids = tokens[starts + torch.arange(seq)]
            yield {"input_ids": ids, "labels": ids} if gradients else {"input_ids": ids}

    return Source(model, make, None)


def _load(model: nn.Module, checkpoint: Path) -> None:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        state = state.get("model", state) if isinstance(state, dict) else state
        model.load_state_dict(state)
    except Exception as error:  # unpickling and loading fail in many ways
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot load checkpoint {str(checkpoint)!r}: {reason}") from None
