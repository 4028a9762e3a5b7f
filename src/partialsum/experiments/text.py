"""Text of any kind as its bytes: 256 tokens, no tokenizer to agree on."""

from __future__ import annotations

import glob
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from partialsum.errors import InputError
from partialsum.experiments.data import Dataset

_TEST_SHARE = 10
"""The last tenth of the file is for testing."""

_MODULE = "module:"


@dataclass(frozen=True)
class Windows:
    """Stretches of ``context`` bytes that follow one another; the target of each byte is the next one."""

    data: Tensor
    context: int

    def __len__(self) -> int:
        return (len(self.data) - 1) // self.context

    def samples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, int64 ``[batch, context]``."""
        places = indices[:, None] * self.context + torch.arange(self.context + 1)
        window = self.data[places].long()
        return window[:, :-1], window[:, 1:]


def load_text(path: Path, context: int) -> Dataset:
    """Return the bytes of a file or of several, the first nine tenths to train on, the last to test.

    A path with wildcards, such as ``plays/*_gut.txt``, means all files that fit, one after another in the order of
    their names, so that the last of them are held out whole. ``module:pydoc_data.topics`` means the source of an
    installed Python module: that one is the language reference, a text of 0.7 MB that every CPython has.
    """
    try:
        data = torch.from_numpy(np.concatenate([np.fromfile(file, np.uint8) for file in _files(path)]))
    except OSError as error:
        raise InputError(f"cannot read text {str(path)!r}: {error.strerror or error}") from None
    cut = len(data) - len(data) // _TEST_SHARE
    train, test = Windows(data[:cut], context), Windows(data[cut:], context)
    if not len(train) or not len(test):
        raise InputError(
            f"text {str(path)!r} must be longer for samples of {context} bytes, got {len(data)} bytes: "
            f"at least {(context + 1) * (_TEST_SHARE + 1)} are needed"
        )
    return Dataset("text", train, test, 256, "text")


def _files(path: Path) -> list[Path]:
    name = str(path)
    if name.startswith(_MODULE):
        return [_module_source(name.removeprefix(_MODULE))]
    if path.exists() or not glob.has_magic(name):
        return [path]
    found = sorted(Path(file) for file in glob.glob(name, recursive=True) if Path(file).is_file())
    if not found:
        raise InputError(
            f"text {name!r} must fit some file, seen from {str(Path.cwd())!r}: none does; run the command from where "
            "the path starts, or give another (--data, or path in the configuration)"
        )
    return found


def _module_source(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise InputError(f"text 'module:{name}' must name an installed Python module with a source file")
    return Path(spec.origin)
