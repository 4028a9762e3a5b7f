"""What a CUDA device is asked, in one place: its driver, its size, its architecture, its current stream.

Nothing here is touched before the first CUDA tensor arrives. The tests put a driver of their own beneath this file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from partialsum.errors import InputError

_OLDEST = (8, 0)
_OUT_OF_MEMORY = 2
_CANNOT_LOAD = (200, 209, 218, 222)  # an invalid image, none for this GPU, bad PTX, PTX of a newer compiler
_HINT = "install the 'cuda' extra (pip install 'partialsum[cuda]')"


class Properties(NamedTuple):
    """What launches depend on."""

    units: int
    """Multiprocessors."""
    architecture: str
    """As NVRTC calls it, for example ``sm_90``."""


@lru_cache(maxsize=64)
def properties(device: torch.device) -> Properties:
    """Return a device's properties; :class:`InputError` where it is too old for the kernels."""
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) < _OLDEST:
        raise InputError(
            f"the kernels need a GPU of compute capability 8.0 or newer, {found.name} has {found.major}.{found.minor}"
        )
    return Properties(found.multi_processor_count, f"sm_{found.major}{found.minor}")


def stream(device: torch.device) -> int:
    """Return the handle of torch's current stream on a device."""
    return int(torch.cuda.current_stream(device).cuda_stream)


@contextmanager
def active(device: torch.device) -> Iterator[None]:
    """Make a device's context the current one."""
    with _selected(device):
        # torch selects device 0 by doing nothing, so a thread new to it (autograd's) may have no context yet.
        if int(checked(driver().cuCtxGetCurrent(), "asking for a context")) == 0:
            ordinal = checked(driver().cuDeviceGet(device.index or 0), "finding a device")
            context = checked(driver().cuDevicePrimaryCtxRetain(ordinal), "taking a context")
            checked(driver().cuCtxSetCurrent(context), "setting a context")
        yield


def _selected(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device)


def is_capturing() -> bool:
    """Return whether the current stream is being captured into a graph, when nothing may wait for it."""
    return bool(torch.cuda.is_current_stream_capturing())


@lru_cache(maxsize=1)
def driver() -> Any:
    """Return the bindings of the CUDA driver; :class:`InputError` where they, or the driver itself, are missing."""
    try:
        from cuda.bindings import driver as bindings
    except ImportError as error:
        raise InputError(f"CUDA tensors need the driver's bindings: {_HINT} ({error})") from None
    try:
        bindings.cuDriverGetVersion()
    except RuntimeError as error:
        raise InputError(f"CUDA tensors need NVIDIA's driver, which cannot be loaded: {error}") from None
    return bindings


def load(code: bytes, names: tuple[str, ...], device: torch.device) -> dict[str, Any]:
    """Return functions of machine code, by name, loaded on a device; :class:`InputError` where the driver is too old.

    Loading is complete when this returns, and is allowed while a graph is captured.
    """
    lib = driver()
    with active(device):
        relaxed = lib.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        before = checked(lib.cuThreadExchangeStreamCaptureMode(relaxed), "preparing to load kernels")
        try:
            module = _module(lib, code)
            functions = {
                name: checked(lib.cuModuleGetFunction(module, name.encode()), f"finding {name}") for name in names
            }
            for name, function in functions.items():
                checked(lib.cuFuncLoad(function), f"loading {name}")
        finally:
            lib.cuThreadExchangeStreamCaptureMode(before)
    return functions


def _module(lib: Any, code: bytes) -> Any:
    outcome = lib.cuModuleLoadData(code)
    if int(outcome[0]) in _CANNOT_LOAD:
        version = checked(lib.cuDriverGetVersion(), "asking for the driver's version")
        raise InputError(
            f"the driver, for CUDA {version // 1000}.{version % 1000 // 10}, cannot load what NVRTC made: it must be "
            f"as new as the nvidia-cuda-nvrtc package ({_name(outcome[0])})"
        )
    return checked(outcome, "loading kernels")


def launch(function: Any, grid: tuple[int, int, int], threads: int, on: int, *arguments: Any) -> None:
    """Launch a function of the current device on stream ``on``; arguments are ctypes objects, passed by value."""
    addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(x) for x in arguments))
    outcome = driver().cuLaunchKernel(function, *grid, threads, 1, 1, 0, on, ctypes.addressof(addresses), 0)
    checked(outcome, "launching a kernel")


def record(data: bytes) -> Any:
    """Return bytes as an argument of a kernel."""
    return ctypes.create_string_buffer(data, len(data))


def pointer(address: int) -> Any:
    """Return an address on the device as an argument of a kernel."""
    return ctypes.c_uint64(address)


def checked(outcome: tuple[Any, ...], doing: str) -> Any:
    """Return what a call of the driver gave; raise an error that says what was being done."""
    status, *values = outcome
    if int(status) == _OUT_OF_MEMORY:
        raise torch.cuda.OutOfMemoryError(f"CUDA ran out of memory while {doing}; smaller batches need less")
    if int(status) != 0:
        raise RuntimeError(f"CUDA failed while {doing}: {_name(status)}")
    return values[0] if values else None


def _name(status: Any) -> str:
    return str(getattr(status, "name", status))


def on_gpu(*tensors: Tensor | None) -> bool:
    """Return whether any of the tensors is a CUDA tensor."""
    return any(x is not None and x.is_cuda for x in tensors)


def check_devices(**tensors: Tensor | None) -> None:
    """Raise :class:`InputError` unless all tensors are on one device, a CPU or a CUDA one; names are the argument's."""
    first: tuple[str, torch.device] | None = None
    for name, x in tensors.items():
        if x is None:
            continue
        if x.device.type not in ("cpu", "cuda"):
            raise InputError(
                f"{name} must be on a CPU or a CUDA device, as there is no kernel for {x.device.type} tensors; "
                f"got {x.device}"
            )
        if first is None:
            first = name, x.device
        elif x.device != first[1]:
            raise InputError(f"{name} must be on the device of {first[0]} ({first[1]}), got {x.device}")
