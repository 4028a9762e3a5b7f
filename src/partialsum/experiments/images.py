"""Folders of images laid out as ImageNet is: one folder per class, decoded when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from partialsum.errors import InputError
from partialsum.experiments.data import Dataset

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})
_TEST_FOLDERS = ("val", "test")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP = 0.875
"""Share of the shorter side that the central crop keeps, as is usual for ImageNet (224 of 256)."""


@dataclass(frozen=True)
class ImageFiles:
    """Image files and their labels; ``samples`` decodes them to ``[batch, 3, size, size]``, ImageNet's normalisation.

    The shorter side is brought to ``size`` / 0.875 and the centre cropped.
    """

    files: tuple[Path, ...]
    labels: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def samples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return decoded, normalised float32 images and their labels."""
        images = torch.stack([read_image(self.files[int(index)], self.size) for index in indices])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        return (images - mean) / std, self.labels[indices]


def load_folder(folder: Path, size: int) -> Dataset:
    """Return the images of ``folder/train/CLASS/*`` and ``folder/val/CLASS/*`` (or ``test``)."""
    train = folder / "train"
    test = next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)
    if not train.is_dir() or test is None:
        raise InputError(
            f"path must be a folder with the folders train and val (or test), each with one folder of images per "
            f"class, got {str(folder)!r}"
        )
    classes = sorted(path.name for path in train.iterdir() if path.is_dir())
    if not classes:
        raise InputError(f"{str(train)!r} must hold one folder of images per class, found none")
    if unknown := sorted({path.name for path in test.iterdir() if path.is_dir()} - set(classes)):
        raise InputError(f"{str(test)!r} has classes that train does not: {', '.join(unknown[:5])}")
    return Dataset("folder", _files(train, classes, size), _files(test, classes, size), len(classes))


def _files(folder: Path, classes: list[str], size: int) -> ImageFiles:
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        place = folder / name
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES) if place.is_dir() else []
        found += [(file, label) for file in files]
    if not found:
        raise InputError(f"{str(folder)!r} holds no images ({', '.join(sorted(SUFFIXES))})")
    return ImageFiles(tuple(file for file, _ in found), torch.tensor([label for _, label in found]), size)


def read_image(path: Path, size: int) -> Tensor:
    """Return an image as float32 ``[3, size, size]`` from 0 to 1, scaled and cropped to the centre."""
    try:
        from PIL import Image
    except ImportError:
        raise InputError("folders of images are decoded by pillow: pip install pillow") from None
    import numpy as np

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot decode image {str(path)!r}: {error}") from None
    target = max(round(size / _CROP), size)
    scale = target / min(image.size)
    image = image.resize([max(size, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.uint8)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
