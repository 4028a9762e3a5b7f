"""CUDA C++ to machine code with NVRTC, at first use, kept on disk; no compiler and no torch headers at the user's.

The cache lies under ``$PARTIALSUM_CACHE``, else ``$XDG_CACHE_HOME/partialsum`` or ``~/.cache/partialsum``. A file's
name is the hash of the source, of every header, of the options and of the compiler's version, so nothing stale is used.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from partialsum.arithmetic.cuda_kernels import header_folders
from partialsum.errors import InputError
from partialsum.files import write_atomically

_HINT = "install the 'cuda' extra (pip install 'partialsum[cuda]')"


def nvrtc() -> Any:
    """Return the NVRTC bindings; :class:`InputError` where they or the library itself are missing."""
    try:
        from cuda.bindings import nvrtc as bindings

        try:
            bindings.nvrtcVersion()
        except RuntimeError:
            if not _find_library():
                raise
            bindings.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise InputError(f"kernels for CUDA tensors need NVRTC: {_HINT} ({error})") from None
    _load_builtins()
    return bindings


def _find_library() -> bool:
    """Load NVRTC from wherever modules are found; the bindings look in site folders alone, not along ``sys.path``."""
    for folder in sys.path:
        for path in sorted(Path(folder, "nvidia").glob("*/lib/libnvrtc.so.*")):
            with suppress(OSError):
                ctypes.CDLL(str(path))
                return True
    return False


@cache
def _load_builtins() -> None:
    """Load the library that NVRTC asks for by name alone; before 13.5 it does not know that it lies beside itself."""
    loaded = re.findall(r"(/\S.*)/libnvrtc\.so", Path("/proc/self/maps").read_text(encoding="utf-8"))
    for folder in set(loaded):
        for path in Path(folder).glob("libnvrtc-builtins.so.*"):
            with suppress(OSError):
                ctypes.CDLL(str(path))


def compile_kernels(sources: Sequence[str], architecture: str) -> list[bytes]:
    """Return the machine code of every source for an architecture such as ``sm_90``, from the cache where it is there.

    The others are compiled side by side, as many at a time as there are processors.
    """
    paths = [_cache_folder() / f"{_digest(source, architecture)}.cubin" for source in sources]
    kept = [_kept(path) for path in paths]
    missing = [i for i, code in enumerate(kept) if code is None]
    if missing:
        nvrtc()  # its import is not for threads
        with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
            fresh = list(pool.map(lambda i: compile_fresh(sources[i], architecture)[0], missing))
        for i, code in zip(missing, fresh, strict=True):
            kept[i] = code
            _keep(paths[i], code)
    return [code for code in kept if code is not None]


def _kept(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _keep(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, code)
    except (OSError, InputError):
        pass  # a cache that cannot be written costs time, nothing else


def compile_fresh(source: str, architecture: str, extra: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """Return the machine code of ``source`` and what the compiler said, past the cache.

    For a GPU newer than the compiler it is PTX of the newest architecture that both know, which the driver translates.
    """
    bindings = nvrtc()
    known = _checked(bindings, bindings.nvrtcGetSupportedArchs())
    target = known_architecture(architecture, known)
    program = _checked(bindings, bindings.nvrtcCreateProgram(source.encode(), b"partialsum.cu", 0, [], []))
    options = [option.encode() for option in (*_options(target), *extra)]
    result = bindings.nvrtcCompileProgram(program, len(options), options)[0]
    log = _text(bindings, program)
    if result != bindings.nvrtcResult.NVRTC_SUCCESS:
        raise InputError(f"NVRTC could not compile for {architecture}: {log.strip()[:2000] or result}")
    is_virtual = target.startswith("compute_")
    size_of, get = (
        (bindings.nvrtcGetPTXSize, bindings.nvrtcGetPTX)
        if is_virtual
        else (bindings.nvrtcGetCUBINSize, bindings.nvrtcGetCUBIN)
    )
    code = b" " * _checked(bindings, size_of(program))
    _checked(bindings, get(program, code))
    bindings.nvrtcDestroyProgram(program)
    return code, log


def known_architecture(architecture: str, known: Sequence[int]) -> str:
    """Return ``sm_N`` where the compiler knows it, else the newest older one as ``compute_N``."""
    number = int(architecture.removeprefix("sm_"))
    if number in known:
        return architecture
    older = [x for x in known if x < number]
    if not older:
        raise InputError(f"NVRTC cannot compile for {architecture}: it knows {', '.join(map(str, known))}")
    return f"compute_{max(older)}"


def _options(architecture: str) -> tuple[str, ...]:
    # No contraction: a multiply-add where the source says multiply, then add, would round once instead of twice.
    folders = [f"-I{folder}" for folder in header_folders()]
    return ("--std=c++17", f"--gpu-architecture={architecture}", "--fmad=false", "-default-device", *folders)


def _text(bindings: Any, program: Any) -> str:
    size = _checked(bindings, bindings.nvrtcGetProgramLogSize(program))
    log = b" " * size
    _checked(bindings, bindings.nvrtcGetProgramLog(program, log))
    return str(log.rstrip(b"\0 "), errors="replace")


def _checked(bindings: Any, outcome: tuple[Any, ...]) -> Any:
    status, *values = outcome
    if status != bindings.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC failed: {status}")
    return values[0] if values else None


def _digest(source: str, architecture: str) -> str:
    digest = hashlib.sha256(source.encode())
    digest.update(repr((_options(architecture), _compiler_version())).encode())
    digest.update(_header_digest())
    return digest.hexdigest()


@cache
def _compiler_version() -> str:
    """Of the installed package, which spares loading the library where nothing has to be compiled."""
    try:
        return metadata.version("nvidia-cuda-nvrtc")
    except metadata.PackageNotFoundError:
        return repr(nvrtc().nvrtcVersion())


@cache
def _header_digest() -> bytes:
    digest = hashlib.sha256()
    for folder in header_folders():
        for path in sorted(folder.rglob("*.*h*")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _cache_folder() -> Path:
    if given := os.environ.get("PARTIALSUM_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partialsum"
