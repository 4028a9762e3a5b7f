"""Data sets by name: Fashion-MNIST, CIFAR-10, folders of images, handwritten digits, the bytes of any file.

Everything is read from files that are already there; nothing is downloaded. What is missing says how to get it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from partialsum.errors import InputError, did_you_mean

DATASETS = ("fashion-mnist", "mnist-idx", "cifar10", "folder", "digits", "text")
"""Names that :func:`load_dataset` knows."""

_DIGITS_TEST_SHARE = 5
"""One digit in five is for testing."""


class Split(Protocol):
    """Samples that can be asked for by index."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def samples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of the samples with these ``indices`` (int64 ``[batch]``)."""
        ...


@dataclass(frozen=True)
class Images:
    """Images in memory: ``pixels`` uint8 ``[count, channels, height, width]``, ``labels`` int64 ``[count]``.

    ``samples`` returns them as float32, normalised with the ``mean`` and ``std`` (per channel) of the training
    images.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def samples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised float32 images ``[batch, channels, height, width]`` and their labels."""
        images = self.pixels[indices].float()
        return (images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1), self.labels[indices]


@dataclass(frozen=True)
class Part:
    """The first ``count`` samples of a split."""

    whole: Split
    count: int

    def __len__(self) -> int:
        return self.count

    def samples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples of the whole."""
        return self.whole.samples(indices)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with ``classes`` classes (for text: 256 byte values).

    ``kind`` is ``"images"`` (inputs float32 ``[batch, channels, height, width]``, targets int64 ``[batch]``) or
    ``"text"`` (inputs and targets int64 ``[batch, context]``, the targets one byte ahead).
    """

    name: str
    train: Split
    test: Split
    classes: int
    kind: str = "images"

    def example(self, batch: int) -> Tensor:
        """Return the inputs of the first ``batch`` training samples."""
        return self.train.samples(torch.arange(batch) % len(self.train))[0]


def load_dataset(
    name: str,
    path: str | Path | None = None,
    *,
    train: int | None = None,
    test: int | None = None,
    image_size: int = 224,
    context: int = 128,
) -> Dataset:
    """Return the data set called ``name`` (one of :data:`DATASETS`).

    Args:
        name: ``fashion-mnist`` (idx files; Debian's package is found by itself), ``mnist-idx`` (idx files of the same
            names in ``path``), ``cifar10`` (binary or Python version), ``folder`` (``train/CLASS/*.jpg`` and ``val``
            or ``test``), ``digits`` (from scikit-learn) or ``text`` (the bytes of any file).
        path: The folder, or for ``text`` the file.
        train, test: Keep only so many samples of each split; the first ones.
        image_size: Height and width that a folder's images are brought to.
        context: Bytes per sample of text.

    Raises:
        InputError: For an unknown name, and for missing or damaged files, with how to get them.
    """
    from partialsum.experiments import cifar, idx, images, text

    where = None if path is None else Path(path)
    match name:
        case "fashion-mnist":
            data = idx.load_fashion_mnist(where)
        case "mnist-idx":
            data = idx.load_idx_folder(name, _required(where, name))
        case "cifar10":
            data = cifar.load_cifar10(_required(where, name, cifar.HOW_TO_GET))
        case "folder":
            data = images.load_folder(_required(where, name), image_size)
        case "digits":
            data = load_digits()
        case "text":
            data = text.load_text(_required(where, name), context)
        case _:
            hint = did_you_mean(name, DATASETS)
            raise InputError(f"data must be one of {', '.join(DATASETS)}, got {name!r}{hint}")
    train_split, test_split = _first(data.train, train, "train"), _first(data.test, test, "test")
    return Dataset(data.name, train_split, test_split, data.classes, data.kind)


def batches(split: Split, batch: int, *, seed: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield training batches without end, each epoch in an order of its own, from step ``start`` on.

    The order depends on ``seed`` and the epoch alone, so a run that starts again at a step sees what it would have
    seen. An incomplete batch at an epoch's end is left out. Raises :class:`InputError` for a batch larger than the
    split.
    """
    if not 1 <= batch <= len(split):
        raise InputError(f"batch must be from 1 to the {len(split)} samples there are, got {batch}")
    per_epoch = len(split) // batch
    step = start
    while True:
        order = epoch_order(len(split), seed, step // per_epoch)
        for place in range(step % per_epoch, per_epoch):
            yield split.samples(order[place * batch : (place + 1) * batch])
        step = (step // per_epoch + 1) * per_epoch


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of ``count`` samples in an epoch: int64 ``[count]``."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator)


def in_order(split: Split, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every sample once, in order; the last batch may be smaller."""
    for start in range(0, len(split), batch):
        yield split.samples(torch.arange(start, min(start + batch, len(split))))


def normalised(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, largest: float = 255.0
) -> Dataset:
    """Return image data in memory, normalised by the training pixels' mean and standard deviation per channel."""
    pixels = train[0]
    channels = pixels.transpose(0, 1).reshape(pixels.shape[1], -1)
    counts = torch.stack([torch.bincount(channel, minlength=int(largest) + 1) for channel in channels]).double()
    levels = torch.arange(counts.shape[1], dtype=torch.float64)
    mean = (counts @ levels) / counts.sum(1)
    std = ((counts @ levels**2) / counts.sum(1) - mean**2).sqrt().clamp_min(1e-6)
    of = (mean.float(), std.float())
    return Dataset(name, Images(*train, *of), Images(*test, *of), classes)


def load_digits() -> Dataset:
    """Return the 1,797 handwritten digits (8 × 8, 17 grey levels) that come with scikit-learn."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise InputError("data 'digits' comes with scikit-learn: pip install scikit-learn") from None
    pixels, labels = load(return_X_y=True)
    images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    order = epoch_order(len(images), seed=0, epoch=0)
    cut = len(order) // _DIGITS_TEST_SHARE
    parts = [(images[part], targets[part]) for part in (order[cut:], order[:cut])]
    return normalised("digits", parts[0], parts[1], 10, largest=16)


def _first(split: Split, count: int | None, argument: str) -> Split:
    if count is None:
        return split
    if not 1 <= count <= len(split):
        raise InputError(f"{argument} must be from 1 to the {len(split)} samples there are, got {count}")
    return Part(split, count)


def _required(path: Path | None, name: str, how: str = "") -> Path:
    if path is None:
        raise InputError(f"data {name!r} needs a path (--data, or path in the configuration){how}")
    return path
