"""CIFAR-10 in its binary and its Python version; the latter's pickles are read without running anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from partialsum.errors import InputError
from partialsum.experiments.data import Dataset, normalised

HOW_TO_GET = (
    ": the folder cifar-10-batches-bin or cifar-10-batches-py, unpacked from cifar-10-binary.tar.gz or "
    "cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html"
)
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CLASSES = 10
_TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))


def load_cifar10(folder: Path) -> Dataset:
    """Return CIFAR-10 from the folder that one of its two archives unpacks to, or from the folder above."""
    for place in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        if (place / "test_batch.bin").is_file():
            return _load(place, ".bin", read_binary)
        if (place / "test_batch").is_file():
            return _load(place, "", read_pickle)
    raise InputError(f"data 'cifar10' was not found in {str(folder)!r}{HOW_TO_GET}")


def _load(folder: Path, suffix: str, read: Callable[[Path], tuple[Tensor, Tensor]]) -> Dataset:
    files = [folder / f"{name}{suffix}" for name in _TRAIN_FILES]
    if missing := [path.name for path in files if not path.is_file()]:
        raise InputError(f"data 'cifar10' in {str(folder)!r} lacks {', '.join(missing)}{HOW_TO_GET}")
    images, labels = zip(*(read(path) for path in files), strict=True)
    return normalised(
        "cifar10", (torch.cat(images), torch.cat(labels)), read(folder / f"test_batch{suffix}"), _CLASSES
    )


def read_binary(path: Path) -> tuple[Tensor, Tensor]:
    """Return images ``[count, 3, 32, 32]`` and labels of a ``.bin`` file: per image a label byte and 3072 pixels."""
    raw = np.fromfile(path, np.uint8)
    if not raw.size or raw.size % (1 + _PIXELS):
        raise InputError(f"{str(path)!r} is damaged: {raw.size} bytes are no whole number of CIFAR-10 records")
    records = torch.from_numpy(raw).view(-1, 1 + _PIXELS)
    return _checked(records[:, 1:], records[:, 0].long(), path)


def read_pickle(path: Path) -> tuple[Tensor, Tensor]:
    """Return images and labels of a batch of the Python version, executing nothing that the file asks for."""
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except InputError as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"{str(path)!r} is damaged: {error}") from None
    data = content.get(b"data") if isinstance(content, dict) else None
    labels = content.get(b"labels") if isinstance(content, dict) else None
    pixels = data.array if isinstance(data, _Array) else None
    if pixels is None or pixels.dtype != np.uint8 or not isinstance(labels, list):
        raise InputError(f"{str(path)!r} must hold a uint8 array 'data' and a list 'labels'")
    try:
        targets = torch.tensor([int(label) for label in labels])
    except (TypeError, ValueError):
        raise InputError(f"{str(path)!r} must hold numbers as 'labels'") from None
    return _checked(torch.from_numpy(pixels.copy()), targets, path)


def _checked(pixels: Tensor, labels: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    if pixels.shape != (len(labels), _PIXELS) or not len(labels):
        raise InputError(f"{str(path)!r} must hold {_PIXELS} pixels per label, got {list(pixels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= _CLASSES:
        raise InputError(
            f"{str(path)!r} must hold labels from 0 to 9, got {int(labels.min())}..{int(labels.max())}"
        )
    return pixels.reshape(-1, *_SHAPE), labels


class _Dtype:
    """Stands for ``numpy.dtype`` in a pickle: numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        name = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if name not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"):
            raise InputError(f"an array of type {name!r} was not expected")
        self.code, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        self.order = ">" if order == ">" else "<"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle: built from shape, type and bytes by checked code of our own."""

    def __init__(self, *_: Any) -> None:
        self.array: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | str):
            raise InputError("an array of plain numbers was expected")
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands for ``_codecs.encode``, which Python 3 writes bytes with in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise InputError("an encoding other than latin1 was not expected")
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values and numeric arrays; every other name in the file is refused, and nothing is imported."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        if found is None:
            raise InputError(f"its pickle asks for {module}.{name}, which is not plain data; nothing was run")
        return found
