"""Data from files: every format written by hand here, read back; damage and pickled code refused."""

from __future__ import annotations

import gzip
import itertools
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import partialsum as ps
from partialsum.experiments.cifar import read_pickle
from partialsum.experiments.data import batches, in_order, load_dataset
from partialsum.experiments.idx import DEBIAN_FOLDER
from tools import require_file

RNG = np.random.default_rng(0)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    raw = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def idx_folder(folder: Path, suffix: str) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {
        "train-images-idx3-ubyte": RNG.integers(0, 256, (12, 5, 4), np.uint8),
        "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 3,
        "t10k-images-idx3-ubyte": RNG.integers(0, 256, (6, 5, 4), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(6, dtype=np.uint8) % 3,
    }
    for name, array in arrays.items():
        write_idx(folder / f"{name}{suffix}", array)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    arrays = idx_folder(tmp_path, suffix)
    data = load_dataset("mnist-idx", tmp_path)
    images, labels = data.train.samples(torch.tensor([3, 0]))
    pixels = arrays["train-images-idx3-ubyte"].astype(np.float64)
    expected = (pixels[[3, 0]] - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(images[:, 0].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [0, 0]
    assert (len(data.train), len(data.test), data.classes, images.shape) == (12, 6, 3, (2, 1, 5, 4))


def test_damaged_idx_files(tmp_path: Path) -> None:
    idx_folder(tmp_path, "")
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ps.InputError, match=r"is damaged: shape \[12, 5, 4\] needs other than its 239 values"):
        load_dataset("mnist-idx", tmp_path)
    path.write_bytes(b"\x00\x00\x0d\x01")
    with pytest.raises(ps.InputError, match="is not an idx file of unsigned bytes"):
        load_dataset("mnist-idx", tmp_path)
    path.unlink()
    with pytest.raises(ps.InputError, match=r"path must be a folder with train-images-idx3-ubyte or .*\.gz"):
        load_dataset("mnist-idx", tmp_path)


def test_fashion_mnist_is_found_by_itself() -> None:
    require_file(DEBIAN_FOLDER)
    data = load_dataset("fashion-mnist", test=500)
    assert (len(data.train), len(data.test), data.classes) == (60000, 500, 10)
    images, labels = data.train.samples(torch.arange(60000))
    assert torch.bincount(labels).tolist() == [6000] * 10
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3


def test_missing_data_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partialsum.experiments.idx.DEBIAN_FOLDER", tmp_path / "nowhere")
    with pytest.raises(ps.InputError, match="install Debian's package dataset-fashion-mnist"):
        load_dataset("fashion-mnist")
    with pytest.raises(ps.InputError, match=r"needs a path .*cifar-10-binary\.tar\.gz"):
        load_dataset("cifar10")
    with pytest.raises(ps.InputError, match=r"'cifar10' was not found in .*cifar\.html"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(ps.InputError, match="got 'fashionmnist'; did you mean 'fashion-mnist'"):
        load_dataset("fashionmnist")


def cifar_arrays(count: int) -> tuple[np.ndarray[Any, Any], list[int]]:
    return RNG.integers(0, 256, (count, 3072), np.uint8), [int(x) for x in RNG.integers(0, 10, count)]


@pytest.mark.parametrize("kind", ["bin", "python2", "python3"])
def test_cifar10(tmp_path: Path, kind: str) -> None:
    first = None
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels, labels = cifar_arrays(4)
        first = first or (pixels, labels)
        if kind == "bin":
            records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
        else:
            content = {b"data": pixels, b"labels": labels, b"batch_label": b"x", b"filenames": [b"a.png"] * 4}
            raw = pickle.dumps(content, protocol=2)
            if kind == "python2":  # the name numpy had when the archive was made
                raw = raw.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            (tmp_path / name).write_bytes(raw)
    data = load_dataset("cifar10", tmp_path)
    assert first is not None
    split: Any = data.train
    assert torch.equal(split.pixels[:4].reshape(4, 3072), torch.from_numpy(first[0]))
    assert split.labels[:4].tolist() == first[1]
    assert (len(data.train), len(data.test), data.example(2).shape) == (20, 4, (2, 3, 32, 32))


class _Evil:
    def __init__(self, callee: Any, *args: Any) -> None:
        self.call = (callee, args)

    def __reduce__(self) -> Any:
        return self.call


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    import os

    trace = tmp_path / "trace"
    path = tmp_path / "data_batch_1"
    for evil in (
        _Evil(os.system, f"touch {trace}"),
        _Evil(eval, f"open({str(trace)!r}, 'w')"),
        _Evil(np.load, str(trace)),
        _Evil(getattr, "x", "upper"),
    ):
        path.write_bytes(pickle.dumps({b"data": evil, b"labels": []}))
        with pytest.raises(ps.InputError, match="which is not plain data; nothing was run"):
            read_pickle(path)
    path.write_bytes(pickle.dumps({b"data": np.array([object], object), b"labels": []}))
    with pytest.raises(ps.InputError, match="an array of type 'O8' was not expected"):
        read_pickle(path)
    assert not trace.exists()
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]})[:200])
    with pytest.raises(ps.InputError, match="is damaged"):
        read_pickle(path)


def test_folders_of_images(tmp_path: Path) -> None:
    for split, counts in (("train", (3, 2)), ("val", (1, 1))):
        for label, count in enumerate(counts):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40 + 7 * i, 60), (255 * label, 51 * i, 0)).save(folder / f"{i}.png")
    data = load_dataset("folder", tmp_path, image_size=32)
    images, labels = data.train.samples(torch.tensor([1, 4]))
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [0, 1]
    colours = images[:, :, 16, 16] * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])
    torch.testing.assert_close(colours, torch.tensor([[0.0, 0.2, 0.0], [1.0, 0.2, 0.0]]), rtol=0, atol=1e-5)
    (tmp_path / "val" / "class9").mkdir()
    with pytest.raises(ps.InputError, match="has classes that train does not: class9"):
        load_dataset("folder", tmp_path)
    (tmp_path / "train" / "class0" / "0.png").write_bytes(b"no image")
    with pytest.raises(ps.InputError, match="cannot decode image"):
        data.train.samples(torch.tensor([0]))


def test_text_is_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "text"
    text = bytes(RNG.integers(0, 256, 1000, np.uint8))
    path.write_bytes(text)
    data = load_dataset("text", path, context=10)
    inputs, targets = data.train.samples(torch.tensor([0, 7]))
    assert bytes(inputs[1].tolist()) == text[70:80]
    assert bytes(targets[1].tolist()) == text[71:81]
    last, _ = data.test.samples(torch.tensor([len(data.test) - 1]))
    assert bytes(data.test.samples(torch.tensor([0]))[0][0].tolist()) == text[900:910]
    assert last.shape == (1, 10)
    reference = load_dataset("text", "module:pydoc_data.topics")
    assert len(reference.train) > 1000
    with pytest.raises(ps.InputError, match=r"text 'module:no\.such' must name an installed Python module"):
        load_dataset("text", "module:no.such")
    (tmp_path / "b.txt").write_bytes(text[600:])
    (tmp_path / "a.txt").write_bytes(text[:600])
    (tmp_path / "c.txt").mkdir()
    joined = load_dataset("text", tmp_path / "[abc].txt", context=10)
    for mine, theirs in ((joined.train, data.train), (joined.test, data.test)):
        everything = torch.arange(len(theirs))
        assert len(mine) == len(theirs)
        assert torch.equal(mine.samples(everything)[1], theirs.samples(everything)[1])
    with pytest.raises(ps.InputError, match=r"text '.*/no\*\.txt' must fit some file, seen from '.*': none does"):
        load_dataset("text", tmp_path / "no*.txt")
    path.write_bytes(b"short")
    with pytest.raises(ps.InputError, match="must be longer for samples of 10 bytes, got 5 bytes: at least 121"):
        load_dataset("text", path, context=10)


def test_digits_and_parts() -> None:
    data = load_dataset("digits", train=100, test=50)
    assert (len(data.train), len(data.test), data.classes) == (100, 50, 10)
    with pytest.raises(ps.InputError, match="train must be from 1 to the 1438 samples there are, got 2000"):
        load_dataset("digits", train=2000)


def test_batches_go_on_where_a_run_stopped() -> None:
    data = load_dataset("digits", train=10)
    whole = [labels for _, labels in itertools.islice(batches(data.train, 3, seed=5), 9)]
    for start in range(9):
        rest = [labels for _, labels in itertools.islice(batches(data.train, 3, seed=5, start=start), 9 - start)]
        assert all(map(torch.equal, whole[start:], rest))
    order = data.train.samples(torch.arange(10))[1]
    assert not torch.equal(torch.cat(whole[:3]), torch.cat(whole[3:6]))
    other = next(batches(data.train, 10, seed=6))[1]
    assert sorted(other.tolist()) == sorted(order.tolist())
    assert [len(labels) for _, labels in in_order(data.train, 4)] == [4, 4, 2]
    with pytest.raises(ps.InputError, match="batch must be from 1 to the 10 samples there are, got 11"):
        next(batches(data.train, 11))
