"""How much of the cards is used? Asked of NVIDIA's own library (NVML) at every look at the metrics.

The library comes with the driver, and its C interface is stable, so it needs no package: without a card it is not
there, and there are no figures. It tells of the whole card, whoever uses it, and makes no context of its own on it.
Source of the names and structures: NVIDIA, NVML API Reference Guide, "Device Queries".
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial

from libs.common.logs import get_logger
from libs.common.metrics import GPU_BUSY, GPU_MEMORY, GPU_MEMORY_USED

log = get_logger("gpu")

LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """nvmlMemory_t, bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilisation(ctypes.Structure):
    """nvmlUtilization_t, percent."""

    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class Card:
    """One card of this node."""

    def __init__(self, library: ctypes.CDLL, number: int) -> None:
        self.number = number
        self._library = library
        self._handle = ctypes.c_void_p()
        _require(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(self._handle)))

    def memory(self) -> int:
        """Bytes of the whole card. Raises OSError when the driver does not say."""
        return int(self._memory().total)

    def memory_used(self) -> int:
        """Bytes that are taken. Raises OSError when the driver does not say."""
        return int(self._memory().used)

    def busy(self) -> float:
        """Share of the last sample period (a sixth to one second) in which it computed, 0-1. Raises OSError."""
        found = _Utilisation()
        _require(self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(found)))
        return float(found.gpu) / 100

    def _memory(self) -> _Memory:
        found = _Memory()
        _require(self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(found)))
        return found


def cards(library: str = LIBRARY) -> list[Card]:
    """The cards of this node; none without the driver's library, or when it refuses."""
    try:
        nvml = ctypes.CDLL(library)
        _require(nvml.nvmlInit_v2())
        count = ctypes.c_uint()
        _require(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        return [Card(nvml, number) for number in range(count.value)]
    except (OSError, AttributeError) as error:
        log.debug("gpu.none", error=str(error))
        return []


def watch(library: str = LIBRARY) -> int:
    """Shows memory and use of every card; returns how many there are."""
    found = cards(library)
    for card in found:
        number = str(card.number)
        GPU_MEMORY.labels(number).set_function(partial(_told, card.memory))
        GPU_MEMORY_USED.labels(number).set_function(partial(_told, card.memory_used))
        GPU_BUSY.labels(number).set_function(partial(_told, card.busy))
    return len(found)


def _told(ask: Callable[[], float]) -> float:
    """What the driver says; not a number when it does not say, as a card in MIG mode does of its use."""
    try:
        return float(ask())
    except OSError:
        return math.nan


def _require(status: int) -> None:
    """Raises OSError for any answer of NVML but NVML_SUCCESS."""
    if status:
        raise OSError(f"NVML answers {status}")
