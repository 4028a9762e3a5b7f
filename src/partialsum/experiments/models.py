"""Small networks to experiment on, written so that their layers have telling names."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from partialsum.errors import InputError, did_you_mean
from partialsum.experiments.config import ModelConfig
from partialsum.experiments.data import Dataset
from partialsum.workloads.user_code import load_callable


class ConvNet(nn.Module):
    """``depth`` 3 × 3 convolutions (usually 5), each with a batch norm, then the mean and a linear read-out.

    The second and fourth convolution halve the picture; the third and the fifth double the channels.
    """

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        last = channels
        for layer in range(depth or 5):
            out = width * 2 ** (layer // 2)
            self.convs.append(nn.Conv2d(last, out, 3, stride=1 + layer % 2, padding=1, bias=False))
            self.norms.append(nn.BatchNorm2d(out))
            last = out
        self.readout = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]`` of images ``[batch, channels, height, width]``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        scores: Tensor = self.readout(x.mean((2, 3)))
        return scores


class _Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """The ResNet of He et al. for small pictures: ``depth`` = 6 n + 2 layers (usually 20), ``width`` first channels."""

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        blocks, rest = divmod((depth or 20) - 2, 6)
        if rest or blocks < 1:
            raise InputError(f"model.depth of a resnet must be 6 n + 2 (8, 14, 20, 32, …), got {depth}")
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        last = width
        for stage in range(3):
            for block in range(blocks):
                out = width * 2**stage
                stages.append(_Residual(last, out, 2 if stage and not block else 1))
                last = out
        self.blocks = nn.Sequential(*stages)
        self.readout = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]`` of images ``[batch, channels, height, width]``."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        scores: Tensor = self.readout(x.mean((2, 3)))
        return scores


class Perceptron(nn.Module):
    """``depth`` hidden linear layers (usually 2) of ``width`` units."""

    def __init__(self, inputs: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * (depth or 2)]
        self.hidden = nn.ModuleList(nn.Linear(first, second) for first, second in itertools.pairwise(sizes))
        self.readout = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores ``[batch, classes]`` of images of any shape."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        scores: Tensor = self.readout(x)
        return scores


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return y


class GPT(nn.Module):
    """A decoder of ``depth`` blocks (usually 4), ``width`` wide, heads of 32, over bytes; no dropout."""

    def __init__(self, classes: int, width: int, depth: int, context: int) -> None:
        super().__init__()
        if width % 32:
            raise InputError(f"model.width of a gpt must be a multiple of 32, got {width}")
        self.tokens = nn.Embedding(classes, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, width // 32) for _ in range(depth or 4))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, classes)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                last = name.endswith(("out.weight", "down.weight"))
                scale = (2 * len(self.blocks)) ** -0.5 if last else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``[batch, tokens, classes]`` of the byte after each of ``x`` ``[batch, tokens]``."""
        y = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            y = block(y)
        scores: Tensor = self.readout(self.norm(y))
        return scores


_IMAGE_MODELS: dict[str, Callable[[int, int, int, int], nn.Module]] = {"convnet": ConvNet, "resnet": ResNet}
MODELS = (*_IMAGE_MODELS, "mlp", "gpt")
"""Names that :func:`build_model` knows."""


def build_model(config: ModelConfig, data: Dataset) -> nn.Module:
    """Return the network of a configuration for a data set, initialised by torch's random state as it stands.

    Raises:
        InputError: For an unknown name, a network that does not take such data, and a pattern of ``frozen`` that
            fits no parameter.
    """
    example = data.example(1)
    if ":" in config.name:
        model, _ = load_callable(config.name, fake=False)
    elif config.name not in MODELS:
        hint = did_you_mean(config.name, MODELS)
        raise InputError(
            f"model.name must be one of {', '.join(MODELS)} or module:callable, got {config.name!r}{hint}"
        )
    elif (config.name == "gpt") != (data.kind == "text"):
        raise InputError(f"model {config.name!r} does not take the {data.kind} of data {data.name!r}")
    elif config.name == "gpt":
        model = GPT(data.classes, config.width, config.depth, example.shape[1])
    elif config.name == "mlp":
        model = Perceptron(example[0].numel(), data.classes, config.width, config.depth)
    else:
        model = _IMAGE_MODELS[config.name](example.shape[1], data.classes, config.width, config.depth)
    if config.readout_std:
        readout = getattr(model, "readout", None)
        if not isinstance(readout, nn.Linear):
            raise InputError(f"model.readout_std needs a linear layer called readout, which {config.name!r} lacks")
        nn.init.normal_(readout.weight, std=config.readout_std)
    for pattern in config.frozen:
        matched = [p for name, p in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise InputError(f"model.frozen names {pattern!r}, which fits no parameter of the model")
        for parameter in matched:
            parameter.requires_grad_(False)
    return model
