"""How do several processes make one run? Each learns from its share of every batch, and gradients are added up.

Started by torchrun, which gives RANK and WORLD_SIZE; gloo on CPUs, nccl on CUDA. Gradients carry the weight of their
share already (`Batch.share`), so a sum over processes is the gradient of the whole batch: the same step as one process
would make. All processes take each decision together, because one that leaves lets the others wait for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import distributed, nn

from libs.common.errors import InvalidInput
from libs.voice.faults import BadStep
from libs.voice.memory import first_line, is_out_of_memory

T = TypeVar("T")
_WELL, _BAD, _MEMORY = 0, 1, 2


class Team:
    """The processes of a run; as made here, one that is alone."""

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks: the first one."""
        return self.rank == 0

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all processes."""
        return list(values)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all processes."""
        return list(values)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in place."""

    def together(self, work: Callable[[], T]) -> T:
        """Do `work`; when it fails in one process for want of memory or with BadStep, it fails so in all."""
        return work()

    def wait(self) -> None:
        """Until all processes are here."""

    def leave(self) -> None:
        """The run is over."""


class _Processes(Team):
    """One process of a torchrun group."""

    def __init__(self, device: torch.device) -> None:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self._device = device if device.type == "cuda" else torch.device("cpu")

    def most(self, values: Sequence[float]) -> list[float]:
        return self._reduced(values, distributed.ReduceOp.MAX)

    def sum(self, values: Sequence[float]) -> list[float]:
        return self._reduced(values, distributed.ReduceOp.SUM)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        # one message instead of hundreds
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def together(self, work: Callable[[], T]) -> T:
        state, said, done = _WELL, "in another process", None
        try:
            done = work()
        except BadStep as bad:
            state, said = _BAD, str(bad)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            state, said = _MEMORY, first_line(error)
        (worst,) = self.most([state])
        if worst == _MEMORY:
            raise torch.OutOfMemoryError(said)
        if worst == _BAD:
            raise BadStep(said)
        assert done is not None or state == _WELL
        return done  # type: ignore[return-value]

    def wait(self) -> None:
        self.most([0.0])

    def leave(self) -> None:
        distributed.destroy_process_group()

    def _reduced(self, values: Sequence[float], how: distributed.ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self._device)
        distributed.all_reduce(tensor, how)
        return [float(value) for value in tensor.cpu()]


def join_team(processes: int, device: torch.device) -> Team:
    """The team of a run with `processes` processes: alone, or the torchrun group that this process is one of.

    Raises InvalidInput when the number is not that of the processes that were started.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        raise InvalidInput(
            f"processes is {processes}, but {started} were started; start them with torchrun --nproc-per-node",
            field="processes",
        )
    return Team() if processes == 1 else _Processes(device)


def own_device(name: str) -> str:
    """The device of this process: with torchrun and CUDA, the one of its local rank."""
    place = os.environ.get("LOCAL_RANK")
    if place is not None and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{place}"
    return name
