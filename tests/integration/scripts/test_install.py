"""Does scripts/install name what is missing, install once, and touch nothing else? Python and pip are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]

# A Python whose `-m venv` makes an environment that only writes down how pip is called.
PYTHON = """#!/bin/bash
case "$*" in
  *"import venv, ensurepip"*) exit ${NO_VENV:-0} ;;
  "-m venv --clear .venv")
    echo venv >>"$HOME/calls"
    mkdir -p .venv/bin
    cp "$HOME/environment" .venv/bin/python ;;
  *) exec python3 "$@" ;;
esac
"""

ENVIRONMENT = """#!/bin/bash
case "$*" in
  *pip*install*) echo "$*" >>"$HOME/calls"; exit ${PIP_STATUS:-0} ;;
  *pip*) exit 0 ;;
  *) exec python3 "$@" ;;
esac
"""


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of what the script needs, readable by everybody: it never runs as root here."""
    folder = Path(tempfile.mkdtemp(prefix="voicewright-install-"))
    for name in ("pyproject.toml", "constraints.txt", "scripts/install"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, folder / name)
    (folder / "python").write_text(PYTHON)
    (folder / "environment").write_text(ENVIRONMENT)
    (folder / "calls").touch()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def install(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    setpriv = shutil.which("setpriv") or "setpriv"
    somebody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    path = "/usr/local/bin:/usr/bin:/bin"
    return subprocess.run(
        [*somebody, str(checkout / "scripts" / "install"), *arguments],
        env={"PATH": path, "HOME": str(checkout), "PYTHON": str(checkout / "python"), **environment},
        capture_output=True,
        text=True,
        timeout=150,
    )


def calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines()


def test_without_root_the_missing_packages_are_named_and_nothing_is_changed(checkout):
    result = install(checkout, NO_VENV="1")

    assert result.returncode == 1
    assert "apt-get install -y --no-install-recommends" in result.stderr
    assert "python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()
    assert calls(checkout) == []


def test_missing_packages_are_listed_one_per_line(checkout):
    result = install(checkout, "--list", NO_VENV="1")

    assert result.returncode == 0
    assert "python3-venv" in result.stdout.splitlines()


def test_everything_goes_into_the_environment_with_the_pinned_versions(checkout):
    result = install(checkout)

    assert result.returncode == 0, result.stderr
    assert calls(checkout)[0] == "venv"
    assert len(calls(checkout)) == 2
    assert calls(checkout)[1].endswith("-e .[all]")
    assert "-c constraints.txt" in calls(checkout)[1]
    assert "--break-system-packages" not in calls(checkout)[1]


def test_a_second_run_has_nothing_to_do(checkout):
    install(checkout, "--dev")
    before = calls(checkout)

    again = install(checkout, "--dev")
    smaller = install(checkout)

    assert "nothing to do" in again.stdout
    assert "nothing to do" in smaller.stdout
    assert calls(checkout) == before


def test_the_tools_of_the_tests_are_added_to_a_smaller_environment(checkout):
    install(checkout)

    install(checkout, "--dev")

    assert [call.split()[-1] for call in calls(checkout)] == ["venv", ".[all]", ".[dev]", "torchcrepe==0.0.24"]


def test_changed_pins_are_installed(checkout):
    install(checkout)
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")

    install(checkout)

    assert len([call for call in calls(checkout) if "-e .[all]" in call]) == 2
    assert calls(checkout).count("venv") == 1


def test_an_interrupted_installation_is_finished_by_the_next_run(checkout):
    failed = install(checkout, PIP_STATUS="1")

    again = install(checkout)

    assert failed.returncode != 0
    assert again.returncode == 0
    assert "nothing to do" not in again.stdout


def test_torch_comes_from_its_own_index_when_one_is_named(checkout):
    install(checkout, TORCH_INDEX_URL="https://example.com/whl/cpu")

    torch = calls(checkout)[1]
    assert "--index-url https://example.com/whl/cpu torch" in torch
    assert "--no-deps" in torch
    assert "example.com" not in calls(checkout)[2]


def test_a_python_that_is_too_old_is_named(checkout):
    (checkout / "python").write_text("#!/bin/sh\necho 3.9\n")

    result = install(checkout)

    assert result.returncode == 1
    assert "3.9" in result.stderr
    assert "3.11" in result.stderr


def test_an_unknown_option_is_refused(checkout):
    assert install(checkout, "--everything").returncode == 2


def test_who_cannot_render_overlays_is_told_so_with_the_tools_of_the_tests(checkout):
    programs = checkout / "bin"
    programs.mkdir()
    needed = ("bash", "sh", "cat", "cp", "mkdir", "rm", "grep", "sha256sum", "cut", "dirname", "readlink", "python3")
    for name in needed:
        (programs / name).symlink_to(shutil.which(name, path="/usr/local/bin:/usr/bin:/bin") or name)
    for name in ("nats-server", "espeak-ng", "curl", "cc", "g++", "make"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)

    without = install(checkout, "--dev", PATH=str(programs))
    (programs / "kubectl").write_text("#!/bin/sh\n")
    (programs / "kubectl").chmod(0o755)
    with_it = install(checkout, "--dev", PATH=str(programs))

    assert "no kubectl (1.21 or newer) here: the tests of deploy/k8s are skipped" in without.stdout
    assert "kubectl" not in with_it.stdout
