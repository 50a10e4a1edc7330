"""On what does this node train? Asked in a child process: the service itself never imports torch."""

from __future__ import annotations

from typing import Any

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from libs.common.processes import in_child

log = get_logger("hardware")


class Device:
    """The device that this node trains on, and the check whether it is there."""

    name = "device"

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._problem: PlatformError | None = None
        self.facts: dict[str, Any] = {}

    async def look(self) -> bool:
        """Fills `facts`; False when the device that was asked for is not there, which readiness then tells."""
        try:
            self.facts = await in_child(describe, self._wanted)
        except PlatformError as error:
            self._problem = error
            log.error("service.not_ready", check=self.name, detail=error.detail)
        return self._problem is None

    async def __call__(self) -> str:
        if self._problem is not None:
            raise self._problem
        return f"{self.facts['device']} ({self.facts['name']})" if self.facts else "not looked at yet"


def describe(wanted: str) -> dict[str, Any]:
    """`{"device": "cpu" | "cuda", "name": …, "memory_bytes": …, "default_preset": …}` for `auto`, `cpu` or `cuda…`.

    Runs in a child process. Raises GpuUnavailable for a GPU that is not there.
    """
    import torch

    from libs.voice.device import pick_device, usable_cores

    device = pick_device(wanted)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "device": "cuda",
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "default_preset": "rvc-v2-40k",
        }
    return {"device": "cpu", "name": f"{usable_cores()} cores", "memory_bytes": 0, "default_preset": "lite"}
