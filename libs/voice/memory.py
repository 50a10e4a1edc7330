"""What happens when a batch does not fit into memory? It is computed in smaller parts that add up to the same step."""

from __future__ import annotations

import errno
import gc

import torch

_SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    # oneDNN's words when it cannot allocate; it has the same ones for what it cannot do, which smaller parts only delay
    "could not create a memory",
    "could not create a primitive",
    "could not execute a primitive",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is how torch, oneDNN, Python or the system say that memory ran out. CPUs give but words."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def first_line(error: BaseException) -> str:
    """What the error says, without the allocator's statistics."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def give_back() -> None:
    """Return what is no longer used to system and driver. Call it outside the `except` that holds the frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
