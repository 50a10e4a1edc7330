"""Does the simulation of the queue obey the laws that every queue obeys, and the order of the real one?"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from libs.common.bus import Bus
from libs.common.events import ValidateDataset
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.common.worker import Worker
from scripts import docs_tables
from scripts.queue_policies import FairShare, Lanes
from scripts.simulate_queue import (
    SCENARIOS,
    Cluster,
    Job,
    Run,
    Scenario,
    Simulation,
    figures,
    quantile,
    simulate,
    workload,
)
from tests.conftest import NatsServer

SPOT = Cluster(5, losses_per_hour=2.0, notice=0.5)
SMALL = [
    Scenario("calm", Cluster(4), 0.9, hours=30),
    Scenario("fair", Cluster(4), 0.9, "fair", hours=30, heap=40),
    Scenario("turns", Cluster(4), 0.9, "turns", hours=30, heap=40),
    Scenario("turns and spot", SPOT, 0.7, "turns", hours=30),
    Scenario("spot", SPOT, 0.7, hours=30),
    Scenario("fair and spot", SPOT, 0.7, "fair", hours=30),
]
EACH = pytest.mark.parametrize("scenario", SMALL, ids=lambda one: one.name)


@EACH
def test_every_job_is_done_once_and_no_work_appears_or_vanishes(scenario: Scenario) -> None:
    run = simulate(scenario)

    assert [job.number for job in sorted(run.jobs, key=lambda job: job.number)] == list(range(len(run.jobs)))
    assert all(job.ended is not None and job.left == 0.0 for job in run.jobs)
    asked, lost = sum(job.seconds for job in run.jobs), sum(job.lost for job in run.jobs)
    assert run.busy_seconds == pytest.approx(asked + lost, rel=1e-9)
    assert all(job.ended >= job.arrives + job.seconds - 1e-6 for job in run.jobs if job.ended is not None)
    assert len(run.starts) == sum(len(job.starts) for job in run.jobs)


@EACH
def test_no_machine_is_idle_while_a_command_waits(scenario: Scenario) -> None:
    assert simulate(scenario).wasted_turns == 0


@EACH
def test_no_machine_has_two_commands_at_once(scenario: Scenario) -> None:
    run = simulate(scenario)

    at_once, ends = 0, sorted(job.ended for job in run.jobs if job.ended is not None)
    if scenario.cluster.losses_per_hour == 0:
        for when, _, _ in run.starts:
            while ends and ends[0] <= when:
                ends.pop(0)
                at_once -= 1
            at_once += 1
            assert at_once <= scenario.cluster.workers


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    once, again = (figures(SMALL[2], simulate(SMALL[2])) for _ in range(2))

    assert once == again
    assert figures(SMALL[2], simulate(replace(SMALL[2], seed=2))) != once


def test_waits_are_those_of_erlangs_formula() -> None:
    """M/M/c, whose mean wait is known exactly: C(c, a) · mean / (c - a), Erlang 1917."""
    servers, load, mean = 5, 0.8, 600.0
    rng, jobs, now = random.Random(3), [], 0.0
    for number in range(60_000):
        now += rng.expovariate(servers * load / mean)
        jobs.append(Job(number, 0, now, rng.expovariate(1 / mean)))

    run = Simulation(jobs, Cluster(servers), Lanes()).go()

    asked = servers * load
    terms = [asked**k / math.factorial(k) for k in range(servers)]
    last = asked**servers / math.factorial(servers) * servers / (servers - asked)
    expected = last / (sum(terms) + last) * mean / (servers - asked)
    # The mean of 60,000 waits that depend on each other scatters by about 3 % at this load.
    assert sum(job.wait for job in run.jobs) / len(run.jobs) == pytest.approx(expected, rel=0.12)


def waiting_at(run: Run, when: float) -> list[Job]:
    return [job for job in run.jobs if job.arrives < when and job.starts[0] > when]


def test_a_command_is_never_taken_while_a_higher_lane_has_one_nor_before_an_older_one_of_its_own() -> None:
    run = simulate(SMALL[0])

    order = list(Lane)
    for when, job, _ in run.starts:
        for other in waiting_at(run, when):
            assert order.index(other.lane) >= order.index(job.lane)
            assert other.lane is not job.lane or other.arrives >= job.arrives


def test_under_fair_share_nobody_waits_longer_than_the_bound() -> None:
    """The age at which a command goes first, then the work that was there before it, then one command's length."""
    aged = 2 * 3600.0
    scenario = Scenario("", Cluster(3), 1.1, hours=40, heap=60, seed=4)
    jobs = workload(scenario)

    run = Simulation(jobs, scenario.cluster, FairShare(aged)).go()

    longest = max(job.seconds for job in run.jobs)
    oldest_first = sorted(run.jobs, key=lambda job: (job.arrives, job.number))
    for place, job in enumerate(oldest_first):
        turns = job.arrives + aged
        before = sum(_left(other, turns) for other in oldest_first[:place])
        assert job.wait <= aged + before / scenario.cluster.workers + longest


def test_in_turns_a_heap_of_one_person_holds_up_others_for_minutes_and_not_for_hours() -> None:
    heap = Scenario("", Cluster(10), 0.5, priorities=((50, 1.0),), hours=30, heap=80)

    def worst_of_others(scenario: Scenario) -> float:
        jobs = [job for job in simulate(scenario).jobs if job.owner != scenario.heaper]
        return quantile([job.wait for job in jobs], 0.95) / 60

    assert worst_of_others(heap) > 60
    assert worst_of_others(replace(heap, policy="turns")) < 30


def _left(job: Job, when: float) -> float:
    """Seconds of its work that are not done at a moment; for machines that are never lost."""
    return job.seconds if job.starts[0] >= when else max(job.starts[0] + job.seconds - when, 0.0)


def test_without_it_the_low_lane_waits_as_long_as_the_others_ask_for_everything() -> None:
    scenario = Scenario("", Cluster(3), 1.2, priorities=((50, 0.9), (10, 0.1)), hours=40)

    run = simulate(scenario)

    low = [job for job in run.jobs if job.lane is Lane.low]
    first_end_of_the_others = max(j.starts[0] for j in run.jobs if j.lane is Lane.normal and j.arrives < 20 * 3600)
    assert quantile([job.wait for job in low], 0.5) > 5 * 3600
    assert min(job.starts[0] for job in low if job.wait > 3600) > first_end_of_the_others / 2


def test_a_machine_that_is_lost_without_a_word_costs_at_most_a_checkpoint_and_the_silence() -> None:
    cluster = Cluster(1, losses_per_hour=6.0, notice=0.0, checkpoint_seconds=60, silence_seconds=45)

    run = Simulation([Job(0, 0, 0.0, 7200.0)], cluster, Lanes(), seed=5).go()

    (job,) = run.jobs
    assert run.losses >= 3
    assert 0 < job.lost < 60 * run.losses
    assert run.busy_seconds == pytest.approx(7200 + job.lost)


async def test_the_order_is_that_of_the_real_worker(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings]
) -> None:
    settings = make_settings(nats_url=nats_server.url)
    bus = await Bus.connect(settings, "ingest")
    await bus.ensure()
    lanes = [random.Random(9).choice(list(Lane)) for _ in range(30)]
    for number, lane in enumerate(lanes):
        command = ValidateDataset(
            job_id=f"job_{number}", step=Step.validate, experiment="anna", dataset="anna", inputs=()
        )
        await bus.send_command(command, lane)
    worker = Worker(bus, settings, Paths(settings), slots=1, info={})
    taken = []
    for _ in lanes:
        delivery = await worker._next()
        assert delivery is not None
        taken.append(int(delivery.envelope.data["job_id"].removeprefix("job_")))
        await delivery.ack()
    await bus.close()

    run = Simulation([Job(n, 0, n * 1e-6, 1.0, lane) for n, lane in enumerate(lanes)], Cluster(1), Lanes()).go()
    simulated = [job.number for _, job, _ in run.starts]
    first = simulated.pop(0)  # in the simulation the worker was there before the second one came
    taken.remove(first)
    assert simulated == taken


def test_the_figures_that_are_kept_are_those_of_the_scenarios() -> None:
    kept = json.loads((Path(docs_tables.DOCS) / "benchmarks" / "queue-simulation.json").read_text())

    assert [one["scenario"]["name"] for one in kept] == [scenario.name for scenario in SCENARIOS]
    for told, scenario in list(zip(kept, SCENARIOS, strict=True))[:2]:
        assert told["figures"] == figures(scenario, simulate(scenario))
