"""On what does this node train? Asked in a child process: the service itself never imports torch."""

from __future__ import annotations

from typing import Any


def describe(wanted: str) -> dict[str, Any]:
    """`{"device": "cpu" | "cuda", "name": …, "memory_bytes": …, "default_preset": …}` for `auto`, `cpu` or `cuda…`."""
    import os

    import torch

    if wanted.startswith("cuda") or (wanted == "auto" and torch.cuda.is_available()):
        properties = torch.cuda.get_device_properties(0 if wanted == "auto" else wanted)
        return {
            "device": "cuda",
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "default_preset": "rvc-v2-40k",
        }
    return {"device": "cpu", "name": f"{os.cpu_count()} cores", "memory_bytes": 0, "default_preset": "lite"}
