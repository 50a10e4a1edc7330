"""Do the scripts call compose with the right files, and refuse what makes no sense? A stand-in notes the calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.secret_file import ensure_secrets, make_full_secrets, read_secrets
from scripts.stack import NEEDS
from tests.deploy.files import PROJECT, STACKS

OPTIONS = {
    "plain": (),
    "dev": ("--dev",),
    "full": ("--full",),
    "dev and full": ("--dev", "--full"),
    "prod": ("--prod",),
    "prod and gpu": ("--prod", "--gpu"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the scripts and compose files, with stand-ins for docker-compose (old) and docker (without compose)."""
    root = tmp_path / "project"
    for folder in ("scripts", "deploy"):
        shutil.copytree(PROJECT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    stand_in = root / "bin" / "docker-compose"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nfor argument; do printf "%s\\n" "$argument"; done >>"$CALLS"\necho >>"$CALLS"\n')
    (root / "bin" / "docker").write_text("#!/bin/sh\nexit 1\n")
    for program in (root / "bin").iterdir():
        program.chmod(0o755)
    return root


def run(project: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=project,
        env={"PATH": f"{project / 'bin'}:{os.environ['PATH']}", "CALLS": str(project / "calls"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def calls(project: Path) -> list[list[str]]:
    """The arguments of each call of docker-compose."""
    written = project / "calls"
    return [call.splitlines() for call in written.read_text().strip().split("\n\n")] if written.exists() else []


def files_of(call: list[str]) -> tuple[str, ...]:
    return tuple(Path(call[i + 1]).name for i, argument in enumerate(call) if argument == "-f")


@pytest.mark.parametrize("name", STACKS)
def test_options_choose_the_files_in_the_order_in_which_they_are_laid(project, name):
    run(project, "scripts/secrets", "--full")

    answer = run(project, "scripts/compose", *OPTIONS[name], "ps")

    assert answer.returncode == 0, answer.stderr
    [call] = calls(project)
    assert set(files_of(call)) == set(STACKS[name])
    assert files_of(call)[0] == "compose.yaml"
    assert call[:2] == ["--project-name", "voicewright"]
    assert call[call.index("--env-file") + 1] == str(project / ".env")
    assert call[-1] == "ps"


def test_a_file_of_ones_own_comes_last(project, tmp_path):
    run(project, "scripts/secrets")
    own = tmp_path / "own.yaml"
    own.write_text("services: {}\n")

    run(project, "scripts/compose", "--with", str(own), "--dev", "up")

    assert files_of(calls(project)[0]) == ("compose.yaml", "compose.dev.yaml", "own.yaml")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--dev", "--prod", "ps"), 2, "exclude each other"),
        (("--cellar", "ps"), 2, "unknown option --cellar"),
        (("--with", "nowhere.yaml", "ps"), 2, "no file nowhere.yaml"),
        (("--with",), 2, "needs a file"),
        ((), 2, "COMMAND"),
        (("ps",), 1, "run scripts/secrets first"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_called(project, arguments, status, said):
    answer = run(project, "scripts/compose", *arguments)

    assert answer.returncode == status
    assert said in answer.stderr
    assert calls(project) == []


@pytest.mark.parametrize(
    ("options", "files", "last"),
    [
        ((), ("compose.yaml", "compose.dev.yaml"), ["up"]),
        (("--full",), ("compose.yaml", "compose.full.yaml", "compose.dev.yaml"), ["up"]),
        (("--gpu",), ("compose.yaml", "compose.dev.yaml", "compose.gpu.yaml"), ["up"]),
        (("--prod",), ("compose.yaml", "compose.full.yaml", "compose.prod.yaml"), ["up", "--detach"]),
        (
            ("--gpu", "--prod"),
            ("compose.yaml", "compose.full.yaml", "compose.prod.yaml", "compose.gpu.yaml"),
            ["up", "--detach"],
        ),
    ],
)
def test_dev_up_makes_secrets_builds_each_image_once_and_starts(project, options, files, last):
    answer = run(project, "scripts/dev-up.sh", *options)

    assert answer.returncode == 0, answer.stderr
    build, up = calls(project)
    assert build[-3:] == ["build", "gateway", "trainer"]
    assert files_of(build) == files_of(up) == files
    assert up[len(up) - len(last) :] == last
    assert (project / "var" / "assets").is_dir()
    names = set(read_secrets(project / ".env"))
    assert ("POSTGRES_PASSWORD" in names) == ("compose.full.yaml" in files)


@pytest.mark.parametrize("other", ["--prod", "--full", "--gpu"])
def test_dev_up_without_docker_takes_no_option_about_containers(project, other):
    answer = run(project, "scripts/dev-up.sh", "--no-docker", other)

    assert answer.returncode == 2
    assert "--no-docker goes with no other option" in answer.stderr
    assert not (project / ".env").exists()


def test_dev_up_says_what_to_do_where_there_is_no_docker(project):
    for program in (project / "bin").iterdir():
        program.unlink()
    # Only what the script itself needs.
    for program in ("bash", "env", "dirname", "readlink", "sed", "mkdir"):
        (project / "bin" / program).symlink_to(shutil.which(program) or program)

    answer = subprocess.run(
        [str(project / "bin" / "bash"), "scripts/dev-up.sh"],
        cwd=project,
        env={"PATH": str(project / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert answer.returncode == 1
    assert "--no-docker needs none" in answer.stderr


@pytest.mark.parametrize("service", NEEDS)
def test_service_up_in_a_container_starts_what_the_service_needs(project, service):
    answer = run(project, "scripts/service-up.sh", "--docker", service)

    assert answer.returncode == 0, answer.stderr
    _, before, up = calls(project)
    assert before[before.index("up") :] == ["up", "--detach", "nats", *NEEDS[service]]
    assert up[-2:] == ["up", service]
    assert files_of(up) == ("compose.yaml", "compose.dev.yaml")


def test_the_full_secrets_hold_the_others_and_fit_into_an_address(tmp_path):
    few = ensure_secrets(tmp_path / ".env")

    all_of_them = ensure_secrets(tmp_path / ".env", full=True)

    assert few.items() <= all_of_them.items()
    assert set(all_of_them) == set(make_full_secrets())
    for name in set(all_of_them) - set(few):
        assert re.fullmatch(r"[\w-]{18,}", all_of_them[name]), name
