"""Does the stack start, watch and end its processes, whatever they do? A real nats-server, stand-in services."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts import processes
from scripts.stack import PORTS, PROJECT, SERVICES, Stack
from scripts.stack_members import StackError, read_state
from tests.waiting import PATIENCE, wait_until

STAND_IN = (sys.executable, str(Path(__file__).parent / "stand_in.py"))


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(root: Path = tmp_path / "stack", **options: Any) -> Stack:
        options.setdefault("services", ("ingest", "gateway"))
        stack = Stack(
            root,
            commands=dict.fromkeys(SERVICES, STAND_IN),
            migrate=False,
            drain=2.0,
            ready_timeout=options.pop("ready_timeout", PATIENCE),
            **options,
        )
        made.append(stack)
        return stack

    yield make

    for stack in made:
        stack.stop()


def test_all_five_services_and_the_broker_become_ready_and_nothing_is_left_after_stop(make_stack):
    stack = make_stack(services=SERVICES)

    stack.start()

    assert set(stack.members) == {"nats", *SERVICES}
    assert all(httpx.get(stack.url(name) + "/readyz", timeout=PATIENCE).status_code == 200 for name in SERVICES)
    assert len(stack.leftovers()) == 6
    stack.stop()
    assert stack.leftovers() == []
    assert not (stack.root / "stack.json").exists()


def test_services_get_one_set_of_addresses_folders_and_secrets(make_stack):
    stack = make_stack(environment={"LEASE_TTL": "2"}).start()

    gateway = httpx.get(stack.url("gateway") + "/environment", timeout=PATIENCE).json()
    ingest = httpx.get(stack.url("ingest") + "/environment", timeout=PATIENCE).json()

    assert gateway["INGEST_URL"] == stack.url("ingest")
    assert gateway["NATS_URL"] == stack.url("nats")
    assert gateway["SERVICE_TOKEN"] == ingest["SERVICE_TOKEN"]
    assert len(gateway["SERVICE_TOKEN"]) >= 32
    assert gateway["DATA_ROOT"] == ingest["DATA_ROOT"] == str(stack.root / "data")
    assert not gateway["DATABASE_URL"].removeprefix("sqlite+aiosqlite:///").startswith(gateway["DATA_ROOT"])
    assert ingest["LEASE_TTL"] == "2"
    assert int(gateway["PORT"]) != int(ingest["PORT"])


def test_variables_of_the_callers_shell_do_not_reach_the_services(make_stack):
    os.environ["UPLOAD_LIMIT"] = "1"
    try:
        stack = make_stack().start()
    finally:
        del os.environ["UPLOAD_LIMIT"]

    assert "UPLOAD_LIMIT" not in httpx.get(stack.url("ingest") + "/environment", timeout=PATIENCE).json()


def test_where_traces_go_may_be_said_in_the_shell(make_stack, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")

    stack = make_stack().start()

    environment = httpx.get(stack.url("ingest") + "/environment", timeout=PATIENCE).json()
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"


def test_settings_beside_the_secrets_reach_every_service(make_stack, tmp_path):
    env = tmp_path / ".env"
    env.write_text("# mine\nUPLOAD_FILE_LIMIT=1MB\nHUBERT_PATH=/srv/hubert_base.pt\n")

    stack = make_stack(secrets_file=env).start()

    for service in ("ingest", "gateway"):
        environment = httpx.get(stack.url(service) + "/environment").json()
        assert environment["UPLOAD_FILE_LIMIT"] == "1MB"
        assert environment["HUBERT_PATH"] == "/srv/hubert_base.pt"
        assert len(environment["SERVICE_TOKEN"]) >= 32
    assert env.read_text().startswith("# mine\nUPLOAD_FILE_LIMIT=1MB\n"), "what was there stays"


def test_secrets_are_kept_between_starts_and_readable_by_their_owner_alone(make_stack):
    stack = make_stack().start()
    first = dict(stack.secrets)
    stack.stop()

    stack.start()

    assert stack.secrets == first
    assert (stack.root / "secrets.env").stat().st_mode & 0o777 == 0o600


def test_stack_json_names_what_runs_and_holds_no_secret(make_stack):
    stack = make_stack().start()

    text = (stack.root / "stack.json").read_text()

    state = json.loads(text)
    assert state["supervisor"] == os.getpid()
    assert state["members"]["gateway"]["url"] == stack.url("gateway")
    assert state["members"]["gateway"]["pid"] == stack.pid("gateway")
    assert not any(secret in text for name, secret in stack.secrets.items() if name != "ADMIN_EMAIL")


def test_a_part_that_is_never_ready_is_named_with_its_reason_and_everything_is_stopped(make_stack):
    stack = make_stack(environment={"STAND_IN": "never"}, ready_timeout=8.0)

    with pytest.raises(StackError, match="ingest: broker: the cupboard is locked"):
        stack.start()

    assert stack.leftovers() == []


def test_a_service_that_ends_during_its_start_is_reported_at_once_with_its_log(make_stack):
    stack = make_stack(environment={"STAND_IN": "crash"}, ready_timeout=1_000_000.0)  # what it would wait otherwise

    with pytest.raises(StackError, match=r"ended with status 7[\s\S]*the floor gave way"):
        stack.start()


def test_a_killed_service_stays_down_until_somebody_starts_it_again(make_stack):
    stack = make_stack().start()
    before = stack.pid("ingest")

    stack.kill("ingest")

    assert not stack.is_running("ingest")
    assert stack.ended() == {"ingest": "signal SIGKILL"}
    time.sleep(0.3)
    assert not stack.is_running("ingest")
    port = stack.members["ingest"].port
    stack.restart("ingest")
    assert stack.pid("ingest") != before
    assert stack.members["ingest"].port == port
    assert stack.ended() == {}


def test_a_restarted_broker_keeps_its_port_and_its_store(make_stack):
    stack = make_stack(services=("ingest",)).start()
    url = stack.url("nats")

    stack.kill("nats")
    stack.restart("nats")

    assert stack.url("nats") == url
    assert (stack.root / "nats" / "jetstream").is_dir()


def test_several_replicas_of_a_worker_run_side_by_side(make_stack):
    stack = make_stack(services=("trainer",), replicas={"trainer": 2}).start()

    third = stack.add("trainer")

    assert set(stack.members) == {"nats", "trainer", "trainer-2", "trainer-3"}
    assert third == "trainer-3"
    assert len({member.port for member in stack.members.values()}) == 4


def test_a_paused_service_does_not_answer_until_it_is_resumed(make_stack):
    stack = make_stack(services=("ingest",)).start()

    stack.pause("ingest")

    with pytest.raises(httpx.ReadTimeout):
        httpx.get(stack.url("ingest") + "/readyz", timeout=0.5)
    stack.resume("ingest")
    assert httpx.get(stack.url("ingest") + "/readyz", timeout=PATIENCE).status_code == 200


def test_pausing_reaches_children_in_sessions_of_their_own(make_stack):
    stack = make_stack(services=("trainer",), environment={"STAND_IN": "child"}).start()
    child = int((stack.root / "data" / "child").read_text())

    stack.pause("trainer")

    wait_until(lambda: processes.status(child) == "T")
    stack.resume("trainer")
    wait_until(lambda: processes.status(child) != "T")
    assert processes.is_alive(child)


def test_a_paused_service_is_stopped_as_well(make_stack):
    stack = make_stack(services=("ingest",)).start()
    stack.pause("ingest")

    stack.stop()

    assert stack.leftovers() == []


def test_a_service_that_ignores_sigterm_is_killed_after_its_time(make_stack):
    stack = make_stack(services=("ingest",), environment={"STAND_IN": "stubborn"}).start()
    started = time.monotonic()

    stack.stop()

    assert time.monotonic() - started > 1.5
    assert stack.leftovers() == []


def test_an_orphaned_grandchild_is_found_and_ended(make_stack):
    stack = make_stack(services=("trainer",), environment={"STAND_IN": "child"}).start()
    child = int((stack.root / "data" / "child").read_text())
    stack.kill("trainer")
    assert processes.is_alive(child)
    assert child in stack.leftovers()

    stack.stop()

    assert not processes.is_alive(child)


def test_two_stacks_in_one_folder_are_refused_and_the_first_goes_on(make_stack):
    first = make_stack().start()

    with pytest.raises(StackError, match=f"already runs in .* \\(process {os.getpid()}\\)"):
        make_stack().start()

    assert httpx.get(first.url("gateway") + "/readyz", timeout=PATIENCE).status_code == 200
    assert read_state(first.root) is not None


def test_a_busy_default_port_is_left_to_its_owner(make_stack):
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if processes.is_free(PORTS["ingest"]):
            owner.bind(("127.0.0.1", PORTS["ingest"]))
            owner.listen()
        said: list[str] = []

        stack = make_stack(services=("ingest",), ports="default", say=said.append).start()

    assert stack.members["ingest"].port != PORTS["ingest"]
    assert any("port 8001 is busy" in line for line in said)


def test_programs_are_found_where_debian_keeps_servers():
    assert processes.find_program("nats-server") is not None
    assert processes.find_program("no-such-program-here") is None


def test_an_unknown_service_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(StackError, match="unknown service cellar: known are ingest"):
        Stack(tmp_path, services=["cellar"])


def _command(root: Path, *more: str, ports: str = "free") -> subprocess.Popen[str]:
    """A supervisor as its own process, with stand-ins, for what happens when it dies."""
    code = (
        "import sys; from pathlib import Path; from scripts.stack import Stack;"
        "import scripts.stack_command as c; import functools;"
        f"options = dict(commands={dict.fromkeys(SERVICES, STAND_IN)!r}, migrate=False, drain=2);"
        "c.Stack = functools.partial(Stack, **options);"
        "c.main(sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "up", "--root", str(root), "--ports", ports, *more],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for_state(root: Path, members: int) -> dict[str, Any]:
    def started() -> dict[str, Any] | None:
        state: dict[str, Any] | None = read_state(root)
        return state if state is not None and state["ready"] and len(state["members"]) == members else None

    found: dict[str, Any] = wait_until(started)
    return found


def _pids(state: dict[str, Any]) -> list[int]:
    return [member["pid"] for member in state["members"].values()]


def test_ctrl_c_stops_everything(tmp_path):
    supervisor = _command(tmp_path / "s", "--only", "gateway")
    state = _wait_for_state(tmp_path / "s", 4)  # nats, ingest, inference, gateway

    supervisor.send_signal(signal.SIGINT)
    output, _ = supervisor.communicate(timeout=PATIENCE)

    assert supervisor.returncode == 0
    assert "SIGINT: stopping" in output
    assert "everything is stopped" in output
    assert processes.wait_gone(_pids(state), 0) == []


def test_a_killed_supervisor_leaves_no_process(tmp_path):
    supervisor = _command(tmp_path / "s", "--only", "ingest")
    state = _wait_for_state(tmp_path / "s", 2)

    supervisor.kill()
    supervisor.communicate(timeout=PATIENCE)

    assert processes.wait_gone(_pids(state), PATIENCE) == []


def test_down_stops_the_stack_of_another_terminal(tmp_path):
    supervisor = _command(tmp_path / "s", "--only", "ingest")
    state = _wait_for_state(tmp_path / "s", 2)

    answer = subprocess.run(
        [sys.executable, "-m", "scripts.stack", "down", "--root", str(tmp_path / "s")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert "everything is stopped" in answer.stdout
    assert supervisor.wait(PATIENCE) == 0
    supervisor.communicate()
    assert processes.wait_gone(_pids(state), 0) == []


def test_a_service_that_ended_is_said_and_can_join_again_on_its_port(tmp_path):
    supervisor = _command(tmp_path / "s", "--only", "gateway")
    state = _wait_for_state(tmp_path / "s", 4)
    os.kill(state["members"]["ingest"]["pid"], signal.SIGKILL)
    processes.wait_gone([state["members"]["ingest"]["pid"]], PATIENCE)

    joined = _command(tmp_path / "s", "--only", "ingest", ports="default")
    files = tmp_path / "s" / "joined"
    wait_until(lambda: list(files.glob("*/stack.json")) or joined.poll() is not None)
    assert joined.poll() is None, joined.communicate()
    joined_state = json.loads(next(files.glob("*/stack.json")).read_text())
    joined.send_signal(signal.SIGTERM)
    joined.communicate(timeout=PATIENCE)
    supervisor.send_signal(signal.SIGTERM)
    output, _ = supervisor.communicate(timeout=PATIENCE)

    assert "ingest ended with signal SIGKILL; the others go on" in output
    assert set(joined_state["members"]) == {"ingest"}
    assert joined_state["nats_url"] == state["nats_url"]
    assert joined_state["members"]["ingest"]["port"] == state["members"]["ingest"]["port"]


def test_a_broker_that_ended_is_started_again_in_its_place(tmp_path):
    supervisor = _command(tmp_path / "s", "--only", "ingest")
    before = _wait_for_state(tmp_path / "s", 2)["members"]["nats"]
    os.kill(before["pid"], signal.SIGKILL)

    end = time.monotonic() + 60
    said = ""
    while "nats was started again" not in said:
        assert supervisor.stdout is not None
        said += supervisor.stdout.readline()
        assert supervisor.poll() is None, said
        assert time.monotonic() < end, said
    now: Any = _wait_for_state(tmp_path / "s", 2)["members"]["nats"]
    with socket.create_connection(("127.0.0.1", now["port"]), timeout=30) as connection:
        greeting = connection.recv(4096)
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=30)

    assert greeting.startswith(b"INFO")
    assert now["pid"] != before["pid"]
    assert now["port"] == before["port"]
    assert "nats ended with signal SIGKILL; the others go on" in said
    assert "service-up.sh nats" not in said, "that command knows no broker"
    assert processes.wait_gone([now["pid"]], 5) == []
