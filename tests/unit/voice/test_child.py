"""A training process obeys, tells the truth about its end, and never outlives its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from libs.common.errors import Conflict, DatasetNotPrepared, TrainingCrashed, WorkFailed
from libs.voice.child import Outcome, TrainingChild, error_from_problem
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import a_worker

LONG = {"preset": "rvc-tiny", "total_steps": 1_000_000, "threads": 1}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("experiment"), sources=3, pieces=1, seconds=0.6)


def child_of(experiment: Path, run: Path, config: dict[str, Any] | None = None, **options: Any) -> TrainingChild:
    return TrainingChild({"experiment": str(experiment), "run": str(run)}, config or LONG, **options)


async def once_training(child: TrainingChild) -> dict[str, Any]:
    """The first progress line of a step."""
    await child.start()
    async for line in child.progress():
        if line["step"] > 0:
            return line
    raise AssertionError(await child.wait())


def script(text: str) -> tuple[str, ...]:
    """A child that does as `text` says, in place of a training run."""
    return (sys.executable, "-u", "-c", text)


async def ended(child: TrainingChild) -> Outcome:
    await child.start()
    return await child.wait()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_whole_run_completes_and_brings_its_result(experiment: Path, tmp_path: Path) -> None:
    child = child_of(experiment, tmp_path, {**LONG, "total_steps": 3})
    await child.start()

    lines = [line async for line in child.progress()]
    outcome = await child.wait()

    assert outcome.ending == "completed"
    assert outcome.result is not None
    assert Path(outcome.result["voice"]).is_file()
    assert outcome.result["steps"] == 3
    assert lines[-1]["phase"] == "done"
    assert lines[-1]["eta_seconds"] == 0.0
    assert not list(tmp_path.glob("job-*.json"))


@pytest.mark.parametrize(
    ("how", "ending"),
    [("cancel", "cancelled"), ("preempt", "preempted"), ("sigterm", "preempted")],
)
async def test_a_child_that_is_asked_to_stop_leaves_a_checkpoint(
    experiment: Path, tmp_path: Path, how: str, ending: str
) -> None:
    child = child_of(experiment, tmp_path)
    reached = await once_training(child)

    if how == "sigterm":
        os.kill(child.pid, signal.SIGTERM)
    else:
        await getattr(child, how)()
    outcome = await asyncio.wait_for(child.wait(), 60)

    metas = [json.loads(path.read_text()) for path in tmp_path.glob("checkpoints/*/meta.json")]
    assert outcome.ending == ending
    assert outcome.error is None
    assert max(meta["step"] for meta in metas) >= reached["step"]


async def test_a_refusal_is_told_apart_from_a_crash(experiment: Path, tmp_path: Path) -> None:
    refused = await ended(child_of(tmp_path / "nothing", tmp_path / "run"))
    killed = child_of(experiment, tmp_path / "other")
    await once_training(killed)
    os.kill(killed.pid, signal.SIGSEGV)
    crashed = await killed.wait()

    assert refused.ending == "failed"
    assert isinstance(refused.error, DatasetNotPrepared)
    assert "filelist.txt is missing" in refused.error.detail
    assert crashed.ending == "crashed"
    assert isinstance(crashed.error, TrainingCrashed)
    assert "SIGSEGV" in crashed.error.detail
    assert crashed.error.retryable


async def test_a_wrong_option_is_refused_by_name(experiment: Path, tmp_path: Path) -> None:
    outcome = await ended(child_of(experiment, tmp_path, {"preset": "rvc-tiny", "epochs": 5000}))

    assert outcome.ending == "failed"
    assert outcome.error is not None
    assert outcome.error.field == "epochs"
    assert outcome.error.status == 422


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("raise SystemExit(3)", "code 3"),
        ("import sys; print('last words', file=sys.stderr); sys.exit(0)", "last words"),
        ('print(\'{"kind": "progress", "step": 1}\'); raise SystemExit(0)', "without a word"),
        ("print('not json at all'); raise ValueError('oh')", "oh"),
    ],
)
async def test_an_end_without_a_last_word_is_a_crash_whatever_the_exit_code(
    tmp_path: Path, text: str, message: str
) -> None:
    outcome = await ended(TrainingChild({"run": str(tmp_path)}, {}, command=script(text)))

    assert outcome.ending == "crashed"
    assert outcome.error is not None
    assert message in outcome.error.detail


async def test_sigterm_before_the_child_listens_is_no_crash(tmp_path: Path) -> None:
    early = script("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")

    outcome = await ended(TrainingChild({"run": str(tmp_path)}, {}, command=early))

    assert outcome.ending == "preempted"
    assert outcome.error is None


async def test_a_child_that_says_nothing_is_ended_as_hung(tmp_path: Path) -> None:
    silent = script("import time; time.sleep(60)")
    child = TrainingChild({"run": str(tmp_path)}, {}, command=silent, start_silence=0.3)

    outcome = await asyncio.wait_for(ended(child), 60)

    assert outcome.ending == "crashed"
    assert outcome.error is not None
    assert "said nothing for 0.3 s" in outcome.error.detail


async def test_a_child_that_talks_and_makes_no_step_is_ended_as_hung(tmp_path: Path) -> None:
    busy = script(
        'import time\nwhile True: print(\'{"kind": "progress", "phase": "train", "step": 4}\'); time.sleep(0.05)'
    )
    child = TrainingChild({"run": str(tmp_path)}, {}, command=busy, stall=0.4)

    outcome = await asyncio.wait_for(ended(child), 60)

    assert outcome.ending == "crashed"
    assert outcome.error is not None
    assert "no step for 0.4 s" in outcome.error.detail


async def test_a_child_that_talks_too_much_does_not_wait_for_its_reader(tmp_path: Path) -> None:
    talker = script(
        "import json\nfor i in range(5000): print(json.dumps({'kind': 'progress', 'phase': 'train', 'step': i}))\n"
        "print(json.dumps({'kind': 'result', 'result': {'steps': 5000}}))"
    )

    outcome = await asyncio.wait_for(ended(TrainingChild({"run": str(tmp_path)}, {}, command=talker)), 60)

    assert outcome.ending == "completed"
    assert outcome.result == {"steps": 5000}


@pytest.mark.parametrize("stopped", [False, True])
def test_kill_9_of_the_parent_leaves_no_child(experiment: Path, tmp_path: Path, stopped: bool) -> None:
    parent, pid = a_worker(experiment, tmp_path, LONG)
    if stopped:
        os.kill(pid, signal.SIGSTOP)

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    assert wait_until(lambda: not is_running(pid), 60)


@pytest.mark.parametrize("busy", ["while True: pass", "import time; time.sleep(60)"])
def test_the_end_of_the_pipe_alone_ends_a_busy_child(busy: str) -> None:
    program = (
        "import sys; from libs.voice.parent_watch import watch_pipe; watch_pipe(0, print); print('up', flush=True)\n"
        + busy
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()

    child.stdin.close()

    assert child.wait(60) == 30
    child.stdout.close()


def test_a_child_whose_parent_is_gone_before_it_looks_ends_at_once() -> None:
    program = "from libs.voice.parent_watch import die_with_parent; die_with_parent(999999); print('still here')"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert done.returncode == 30
    assert done.stdout == b""


def test_an_error_survives_the_way_through_a_problem() -> None:
    error = Conflict("it differs", field="seed")
    unknown = error_from_problem({"code": "from_the_future", "detail": "?"})

    assert type(error_from_problem(error.problem())) is Conflict
    assert error_from_problem(error.problem()).problem() == error.problem()
    assert type(unknown) is WorkFailed


def test_the_parents_half_brings_no_torch_into_the_worker() -> None:
    program = "import sys, libs.voice.child; assert not {'torch', 'numpy'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", program], check=True)
