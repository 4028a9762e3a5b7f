"""Images in MNIST's idx files, compressed or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from partialsum.errors import InputError
from partialsum.experiments.data import Dataset, normalised

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts its files."""

_UNSIGNED_BYTE = 8
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def load_fashion_mnist(folder: Path | None) -> Dataset:
    """Return Fashion-MNIST from ``folder``, or from where Debian's package put it."""
    if folder is None and not DEBIAN_FOLDER.is_dir():
        raise InputError(
            "data 'fashion-mnist' was not found: install Debian's package dataset-fashion-mnist, or give the folder "
            f"that holds {_FILES['train'][0]}.gz and the other three files as path (--data)"
        )
    return load_idx_folder("fashion-mnist", folder or DEBIAN_FOLDER)


def load_idx_folder(name: str, folder: Path) -> Dataset:
    """Return the data set of the four idx files with MNIST's names in ``folder``, each plain or as ``.gz``."""
    splits = {}
    for split, (images_name, labels_name) in _FILES.items():
        images, labels = read_idx(_find(folder, images_name)), read_idx(_find(folder, labels_name))
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise InputError(
                f"{split} files in {str(folder)!r} must hold images and as many labels, got shapes "
                f"{list(images.shape)} and {list(labels.shape)}"
            )
        splits[split] = (images.unsqueeze(1), labels.long())
    classes = int(max(labels.max() for _, labels in splits.values())) + 1
    return normalised(name, splits["train"], splits["test"], classes)


def read_idx(path: Path) -> Tensor:
    """Return the uint8 array of an idx file.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, their sizes as big-endian
    32-bit numbers, the values. Raises :class:`InputError` for anything else.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from None
    dimensions = raw[3] if len(raw) >= 4 else 0
    start = 4 + 4 * dimensions
    if raw[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or not dimensions or len(raw) < start:
        raise InputError(f"{str(path)!r} is not an idx file of unsigned bytes")
    shape = [int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4)]
    if len(raw) - start != np.prod(shape, dtype=object):
        raise InputError(f"{str(path)!r} is damaged: shape {shape} needs other than its {len(raw) - start} values")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"path must be a folder with {name} or {name}.gz, which {str(folder)!r} does not have")
