"""On what does a network run, in which precision, with how many threads, and how repeatably?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from libs.common.errors import GpuUnavailable, InvalidInput


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA when it is there; `cpu`, `cuda`, `cuda:1` are taken at their word.

    Raises GpuUnavailable when CUDA is asked for and missing, InvalidInput for a name that is no device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise InvalidInput(f"device is {name!r}; it must be auto, cpu, cuda or cuda:<number>", field="device")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise GpuUnavailable(f"{name} is asked for, and this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def pick_precision(device: torch.device, wish: Literal["auto", "fp32", "bf16"]) -> torch.dtype:
    """bfloat16 where CUDA multiplies it natively, float32 otherwise, unless one of them is asked for."""
    if wish == "bf16":
        return torch.bfloat16
    if wish == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions of its own for products of bfloat16; emulated ones are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


def pick_feature_precision(wish: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """In what features are computed: float32, or bfloat16 where it is asked for (decision 0106).

    Raises InvalidInput when bfloat16 is asked for and `device` does not multiply it natively.
    """
    if wish != "bf16":
        return torch.float32
    if not multiplies_bfloat16(device):
        raise InvalidInput(
            f"PREPROCESS_PRECISION is bf16, and the {device.type} of this machine has no products of bfloat16 (on "
            "x86 these are AVX512_BF16 and AMX): use auto or fp32.",
            field="precision",
        )
    return torch.bfloat16


def precision_name(dtype: torch.dtype) -> str:
    """`fp32` or `bf16`, as settings and manifests write them."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def set_threads(count: int | None) -> int:
    """Use `count` threads inside operations (None: the cores that this process may use); returns the number."""
    if count is None:
        count = usable_cores()
    torch.set_num_threads(count)
    return count


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the container's share of processor time (cgroup v2)."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, -(-int(quota) // int(period))))


def be_deterministic(device: torch.device) -> None:
    """Choose algorithms that give the same bits again. Without one: an error on CPU, a warning on CUDA."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # it would fill every new tensor with NaN to show reads of what was never written: a tenth of the time on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
