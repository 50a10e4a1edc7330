"""How long would commands wait in a cluster that nobody has here? A discrete-event simulation of the trainers' queue.

`python -m scripts.simulate_queue [--output FILE]` runs the scenarios of docs/scaling.md and writes their figures. The
same seed gives the same figures. What is simulated is what libs/common/worker does: a free worker takes the oldest
command of the highest lane that has one, one at a time; what comes back goes before what is new in its lane. With the
policy `turns` the gateway's own choice (services/gateway/jobs/turns.py) says which commands are there.

    arrivals ─▶ lanes ─▶ free worker ─▶ done          lost with a word: saved, back at once
                  ▲                └──▶ lost ──────────┤
                  └────────────────────────────────────┘ without a word: back after the silence, from its checkpoint

What it does not know: the other steps of a job, slots, retries of failed work, and machines of different speeds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from libs.common.jobs import Lane, lane_of
from scripts.queue_policies import POLICIES, Waiting

HOUR = 3600.0


@dataclass(eq=False)
class Job:
    """One command of `seconds` of work; what happened to it is written into it."""

    number: int
    owner: int
    arrives: float
    seconds: float
    lane: Lane = Lane.normal
    left: float = field(init=False)
    lost: float = 0.0
    starts: list[float] = field(default_factory=list)
    ended: float | None = None

    def __post_init__(self) -> None:
        self.left = self.seconds

    @property
    def wait(self) -> float:
        """Seconds until a worker first took it."""
        return self.starts[0] - self.arrives


@dataclass(frozen=True)
class Cluster:
    """Machines with one slot each. Losses are independent, at `losses_per_hour` for each machine."""

    workers: int
    losses_per_hour: float = 0.0
    notice: float = 1.0  # share of losses that are announced, so that the work is saved first
    replacement_seconds: float = 300.0
    checkpoint_seconds: float = 30.0  # CHECKPOINT_EVERY
    silence_seconds: float = 60.0  # ACK_WAIT: after it a command comes again


@dataclass
class Run:
    """What came of it. `starts` are (time, job, worker) in their order; `idle` are moments with a free worker."""

    jobs: list[Job]
    starts: list[tuple[float, Job, int]] = field(default_factory=list)
    busy_seconds: float = 0.0
    losses: int = 0
    wasted_turns: int = 0  # moments at which a worker was free and a command waited: must be none
    ended: float = 0.0


class Simulation:
    """Runs until every job is done."""

    def __init__(self, jobs: Iterable[Job], cluster: Cluster, waiting: Waiting, seed: int = 0) -> None:
        self._cluster = cluster
        self._waiting = waiting
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._turn = 0
        self._free = list(range(cluster.workers))
        self._life = [0] * cluster.workers
        self._hand: list[tuple[Job, float, int] | None] = [None] * cluster.workers
        self.run = Run(sorted(jobs, key=lambda job: (job.arrives, job.number)))
        self._open = len(self.run.jobs)
        for job in self.run.jobs:
            self._at(job.arrives, lambda now, job=job: self._queue(job, now, again=False))  # type: ignore[misc]
        for worker in range(cluster.workers):
            self._plan_loss(worker, 0.0)

    def go(self) -> Run:
        """Everything that happens, in its order; ties in the order in which they were planned."""
        while self._open:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
            self._begin(now)
            if self._free and self._waiting:
                self.run.wasted_turns += 1
            self.run.ended = now
        return self.run

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        self._turn += 1
        heapq.heappush(self._events, (when, self._turn, happen))

    def _queue(self, job: Job, now: float, *, again: bool) -> None:
        self._waiting.put(job, now, again=again)

    def _begin(self, now: float) -> None:
        while self._free and self._waiting:
            worker, job = heapq.heappop(self._free), self._waiting.take(now)
            job.starts.append(now)
            life = self._life[worker]
            self._hand[worker] = (job, now, life)
            self.run.starts.append((now, job, worker))
            self._at(now + job.left, lambda when, w=worker, i=life, j=job: self._end(w, i, j, when))  # type: ignore[misc]

    def _end(self, worker: int, life: int, job: Job, now: float) -> None:
        held = self._hand[worker]
        if held is None or held[0] is not job or held[2] != life:
            return  # the machine was lost meanwhile
        self.run.busy_seconds += now - held[1]
        self._hand[worker] = None
        self._waiting.gave_back(job)
        job.left, job.ended = 0.0, now
        self._open -= 1
        heapq.heappush(self._free, worker)

    def _plan_loss(self, worker: int, now: float) -> None:
        if self._cluster.losses_per_hour > 0:
            when = now + self._random.expovariate(self._cluster.losses_per_hour / HOUR)
            life = self._life[worker]
            self._at(when, lambda then, w=worker, i=life: self._lose(w, i, then))  # type: ignore[misc]

    def _lose(self, worker: int, life: int, now: float) -> None:
        if self._life[worker] != life:
            return
        self.run.losses += 1
        self._life[worker] += 1
        held, self._hand[worker] = self._hand[worker], None
        if held is None:
            self._free.remove(worker)
            heapq.heapify(self._free)
        else:
            self._give_back(held[0], held[1], now)
        self._at(now + self._cluster.replacement_seconds, lambda when: self._return(worker, when))

    def _give_back(self, job: Job, since: float, now: float) -> None:
        done = now - since
        self.run.busy_seconds += done
        self._waiting.gave_back(job)
        is_announced = self._random.random() < self._cluster.notice
        step = self._cluster.checkpoint_seconds
        saved = done if is_announced else math.floor(done / step) * step
        job.left -= saved
        job.lost += done - saved
        back = now if is_announced else now + self._cluster.silence_seconds
        self._at(back, lambda when: self._queue(job, when, again=True))

    def _return(self, worker: int, now: float) -> None:
        heapq.heappush(self._free, worker)
        self._plan_loss(worker, now)


# -- what is asked of a cluster ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """Poisson arrivals that ask for `load` of the cluster's time; lengths are log-normal with this mean and spread."""

    name: str
    cluster: Cluster
    load: float
    policy: Literal["lanes", "turns", "fair"] = "lanes"
    mean_seconds: float = 1800.0
    spread: float = 0.5
    hours: float = 100.0
    owners: int = 50
    # Shares of the arrivals at priority 80, 50 and 10, which lane_of puts into the three lanes.
    priorities: tuple[tuple[int, float], ...] = ((80, 0.1), (50, 0.7), (10, 0.2))
    # One more person who asks for so many at once, an hour after the beginning, at priority 50.
    heap: int = 0
    seed: int = 1

    @property
    def heaper(self) -> int:
        """The number of that person."""
        return self.owners


def workload(scenario: Scenario) -> list[Job]:
    """The jobs of a scenario."""
    rng = random.Random(scenario.seed)
    per_second = scenario.load * scenario.cluster.workers / scenario.mean_seconds
    middle = math.log(scenario.mean_seconds) - scenario.spread**2 / 2
    priorities, shares = zip(*scenario.priorities, strict=True)
    jobs: list[Job] = []
    now = rng.expovariate(per_second)
    while now < scenario.hours * HOUR:
        lane = lane_of(rng.choices(priorities, shares)[0])
        owner = rng.randrange(scenario.owners)
        jobs.append(Job(len(jobs), owner, now, rng.lognormvariate(middle, scenario.spread), lane))
        now += rng.expovariate(per_second)
    for _ in range(scenario.heap):
        seconds = rng.lognormvariate(middle, scenario.spread)
        jobs.append(Job(len(jobs), scenario.heaper, HOUR, seconds, lane_of(50)))
    return jobs


def simulate(scenario: Scenario) -> Run:
    """One scenario to its end."""
    waiting = POLICIES[scenario.policy]()
    return Simulation(workload(scenario), scenario.cluster, waiting, scenario.seed + 1).go()


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def figures(scenario: Scenario, run: Run) -> dict[str, Any]:
    """Waits in minutes by lane, without the first tenth of the time, in which the cluster fills."""
    settled = [job for job in run.jobs if job.arrives >= 0.1 * scenario.hours * HOUR or scenario.heap]
    others = [job for job in settled if job.owner != scenario.heaper]
    told: dict[str, Any] = {
        "jobs": len(run.jobs),
        "busy until the last was done": round(run.busy_seconds / (scenario.cluster.workers * run.ended), 3),
        "machines lost": run.losses,
        "work lost, %": round(100 * sum(j.lost for j in run.jobs) / sum(j.seconds for j in run.jobs), 2),
    }
    for lane in Lane:
        waits = [job.wait / 60 for job in others if job.lane is lane]
        told[f"wait {lane}, min"] = {
            "p50": round(quantile(waits, 0.5), 1),
            "p95": round(quantile(waits, 0.95), 1),
            "longest": round(max(waits, default=0.0), 1),
        }
    return told


CALM = Cluster(10)
SCENARIOS = [
    *(Scenario(f"10 nodes, load {load:.0%}", CALM, load) for load in (0.5, 0.8, 0.9, 0.95)),
    *(Scenario(f"1,000 nodes, load {load:.0%}", Cluster(1000), load, hours=20) for load in (0.8, 0.95, 0.99)),
    Scenario("10 spot nodes, load 80%, 5% lost an hour, announced", replace(CALM, losses_per_hour=0.05), 0.8),
    Scenario("10 spot nodes, load 80%, 5% lost an hour, not announced", Cluster(10, 0.05, notice=0.0), 0.8),
    Scenario("10 spot nodes, load 80%, all lost once an hour, not announced", Cluster(10, 1.0, notice=0.0), 0.8),
    Scenario("10 nodes, load 60%, one person asks for 100 at once, without turns", CALM, 0.6, heap=100),
    Scenario("the same in turns, as shipped", CALM, 0.6, "turns", heap=100),
    Scenario("the same with an ideal share", CALM, 0.6, "fair", heap=100),
    Scenario("10 nodes asked for 120%, without turns", CALM, 1.2, hours=48),
    Scenario("the same in turns, as shipped", CALM, 1.2, "turns", hours=48),
    Scenario("the same with an ideal share", CALM, 1.2, "fair", hours=48),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates the trainers' queue; see docs/scaling.md.")
    parser.add_argument("--output", type=Path, help="where the figures go; printed otherwise")
    asked = parser.parse_args()
    told = [{"scenario": asdict(one), "figures": figures(one, simulate(one))} for one in SCENARIOS]
    text = json.dumps(told, indent=1) + "\n"
    if asked.output is None:
        print(text, end="")
    else:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
