"""The devices that tests of CUDA tensors run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from arithmetic.host_gpu import Gpu, host_gpu


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """A GPU that the host plays, and a real one where there is one."""
    if request.param == "host":
        with host_gpu(monkeypatch) as device:
            yield device
    elif torch.cuda.is_available():
        yield Gpu("cuda")
    else:
        pytest.skip("no CUDA device")
