"""What CUDA tensors need, said in one sentence where it is missing; and the compiler for GPUs, which needs none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import partialsum as ps
import tools
from arithmetic.host_gpu import Gpu, build, host_driver
from partialsum.accumulators import Rounding
from partialsum.arithmetic import cuda_compiler, cuda_device, cuda_kernels, cuda_quantize, cuda_units


def ones(gpu: Gpu) -> torch.Tensor:
    return gpu.tensor(np.ones((2, 2), np.float32))


def host_only(gpu: Gpu) -> None:
    if gpu.device != "cpu":
        pytest.skip("a real driver cannot be made to fail")


def test_mixed_devices(gpu: Gpu) -> None:
    a, other = ones(gpu), torch.ones(2, 2, device="meta")
    message = r"b must be on a CPU or a CUDA device, as there is no kernel for meta tensors; got meta"
    with pytest.raises(ps.InputError, match=message):
        ps.gemm(a, other)
    if gpu.device == "cuda":
        with pytest.raises(ps.InputError, match=r"b must be on the device of a \(cuda:0\), got cpu"):
            ps.gemm(a, torch.ones(2, 2))
        with pytest.raises(
            ps.InputError, match=r"backend must be 'cuda' for operands on cuda:0 .*, got 'reference'"
        ):
            ps.gemm(a, a, backend="reference")


def test_a_backend_that_cannot_reach_the_operands() -> None:
    a = np.ones((2, 2), np.float32)
    with pytest.raises(ps.InputError, match="backend must be 'cpu' or 'reference' for operands on the CPU"):
        ps.gemm(a, a, backend="cuda")


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (
            2,
            torch.cuda.OutOfMemoryError,
            "CUDA ran out of memory while launching a kernel; smaller batches need less",
        ),
        (700, RuntimeError, "CUDA failed while launching a kernel: .*ILLEGAL_ADDRESS"),
    ],
)
def test_failing_launches(gpu: Gpu, status: int, error: type[Exception], message: str) -> None:
    host_only(gpu)
    host_driver().host_driver_fail(status)
    try:
        with pytest.raises(error, match=message):
            ps.gemm(ones(gpu), ones(gpu), "e6m9")
    finally:
        host_driver().host_driver_fail(0)


def test_machine_code_that_the_driver_cannot_load(gpu: Gpu) -> None:
    host_only(gpu)
    device = ones(gpu).device
    message = (
        "the driver, for CUDA .*, cannot load what NVRTC made: it must be as new as the nvidia-cuda-nvrtc package"
    )
    with pytest.raises(ps.InputError, match=message):
        cuda_device.load(b"nothing\0", ("nothing",), device)


def test_loading_gives_the_mode_of_capture_back(gpu: Gpu) -> None:
    host_only(gpu)
    ps.gemm(ones(gpu), ones(gpu), "e6m9")
    assert host_driver().host_driver_capture_mode() == 0


def test_too_many_batch_dimensions(gpu: Gpu) -> None:
    a = ones(gpu).expand(1, 1, 1, 1, 1, 2, 2)
    with pytest.raises(ps.InputError, match="CUDA tensors may have at most 4 batch dimensions, got 5"):
        ps.gemm(a, a)


def test_missing_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    cuda_device.driver.cache_clear()
    message = (
        r"CUDA tensors need the driver's bindings: install the 'cuda' extra \(pip install 'partialsum\[cuda\]'\)"
    )
    with pytest.raises(ps.InputError, match=message):
        cuda_device.driver()


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require_tool("cuda.bindings")
    from cuda.bindings import driver

    def no_driver() -> None:
        raise RuntimeError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(driver, "cuDriverGetVersion", no_driver)
    cuda_device.driver.cache_clear()
    with pytest.raises(ps.InputError, match=r"CUDA tensors need NVIDIA's driver, which cannot be loaded: libcuda"):
        cuda_device.driver()


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        name, major, minor, multi_processor_count = "Tesla V100", 7, 0, 80

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Old)
    cuda_device.properties.cache_clear()
    message = "the kernels need a GPU of compute capability 8.0 or newer, Tesla V100 has 7.0"
    with pytest.raises(ps.InputError, match=message):
        cuda_device.properties(torch.device("cuda", 0))


def test_importing_touches_no_cuda() -> None:
    code = (
        "import sys, torch, partialsum as ps; x = torch.ones(2, 2); ps.gemm(x, x, 'e6m9'); ps.quantize(x, 'e5m2');"
        "from partialsum.arithmetic import cuda_device; assert cuda_device.driver.cache_info().misses == 0;"
        "assert 'cuda.bindings.nvrtc' not in sys.modules; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def sources() -> dict[str, cuda_kernels.Source]:
    """One of every kind of kernel that is compiled."""
    found = {"census": cuda_kernels.census()}
    acc = ps.parse_accumulator("e6m9,chunk=64")
    for shape in (cuda_kernels.LARGE, cuda_kernels.SINGLE):
        found |= {f"{s.names[0]} {shape}": s for s in cuda_kernels.program(acc, shape, patches=False).sources}
    stochastic = ps.parse_accumulator("e6m5,stochastic,chunk=64,product=e6m9")
    for made in (
        cuda_kernels.program(stochastic, cuda_kernels.SQUARE, patches=True),
        cuda_kernels.program(ps.parse_accumulator("fp32"), cuda_kernels.LARGE, patches=False),
    ):
        found |= {f"{s.names[0]} {s.text.count('true')}": s for s in made.sources}
    h100, mi300 = ps.parse_accumulator("h100-fp8"), ps.parse_accumulator("mi300-fp8")
    for acc, sizes in (
        (h100, (4096, 4096, 1)),
        (mi300, (64, 64, 1)),
        (ps.parse_accumulator("int64,saturate"), (9, 9, 1)),
    ):
        made = cuda_units.summation(acc, (None, None), sizes, 132, patches=acc is h100).program
        found |= {f"{s.names[0]} {acc}": s for s in made.sources}
    for kind in ("scaled", "floored"):
        found[kind] = cuda_units._scaled_program(kind, cuda_units.MEDIUM).kernels[0].source
    found["quantize"] = cuda_quantize._elements(Rounding.NEAREST_EVEN, wide=False, in_float32=True)
    found["quantize double"] = cuda_quantize._elements(Rounding.STOCHASTIC, wide=True, in_float32=False)
    found["blocks"] = cuda_quantize._blocks(Rounding.STOCHASTIC)
    return found


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles_for_gpus_and_spills_nothing(architecture: str) -> None:
    tools.require_tool("cuda.bindings")
    every = list(sources().items())
    for name, source in every if architecture == "sm_90" else every[::2]:
        code, log = cuda_compiler.compile_fresh(source.text, architecture, ("--ptxas-options=-v",))
        assert code.startswith(b"\x7fELF")
        spills = re.findall(r"(\d+) bytes spill stores", log)
        assert len(spills) == len(source.names), name
        assert set(spills) == {"0"}, name


def test_a_gpu_newer_than_the_compiler() -> None:
    assert cuda_compiler.known_architecture("sm_90", [80, 90, 100]) == "sm_90"
    assert cuda_compiler.known_architecture("sm_130", [80, 90, 100]) == "compute_100"
    with pytest.raises(ps.InputError, match=r"NVRTC cannot compile for sm_70: it knows 80, 90"):
        cuda_compiler.known_architecture("sm_70", [80, 90])
    tools.require_tool("cuda.bindings")
    code, _ = cuda_compiler.compile_fresh('extern "C" __global__ void nothing() {}', "sm_999")
    assert b".version" in code
    assert code.endswith(b"\0")  # the driver takes text up to there


def test_the_compiler_is_found_along_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not cuda_compiler._find_library()
    (tmp_path / "nvidia/cu13/lib").mkdir(parents=True)
    library = tmp_path / "nvidia/cu13/lib/libnvrtc.so.13"
    library.write_bytes(b"no library")
    assert not cuda_compiler._find_library()
    library.unlink()
    library.symlink_to(build("int nothing;"))
    assert cuda_compiler._find_library()


def test_the_compilers_builtins_are_loaded_beside_it() -> None:
    tools.require_tool("cuda.bindings")
    cuda_compiler.nvrtc()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert re.search(r"/libnvrtc-builtins\.so", maps)


def test_machine_code_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require_tool("cuda.bindings")
    monkeypatch.setenv("PARTIALSUM_CACHE", str(tmp_path / "kernels"))
    texts = ['extern "C" __global__ void nothing() {}', 'extern "C" __global__ void more() {}']
    codes = cuda_compiler.compile_kernels(texts, "sm_90")
    assert all(code.startswith(b"\x7fELF") for code in codes)
    assert codes[0] != codes[1]
    monkeypatch.setattr(cuda_compiler, "compile_fresh", None)
    assert cuda_compiler.compile_kernels(texts[::-1], "sm_90") == codes[::-1]


def test_a_mistake_in_a_kernel_is_told_in_one_sentence() -> None:
    tools.require_tool("cuda.bindings")
    with pytest.raises(ps.InputError, match=r"(?s)NVRTC could not compile for sm_90: .*nonsense"):
        cuda_compiler.compile_fresh("nonsense", "sm_90")
