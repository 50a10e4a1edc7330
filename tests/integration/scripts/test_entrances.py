"""Do the small scripts explain themselves and refuse what they do not know?"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)


def test_make_alone_prints_every_command():
    printed = run("make").stdout

    commands = ("install", "demo", "check", "test", "test-slow", "bench", "quality", "up", "down", "golden")
    assert [name for name in commands if f"make {name} " not in printed] == []


def test_an_unknown_service_is_refused_with_the_known_ones():
    answer = run("scripts/service-up.sh", "cellar")

    assert answer.returncode == 2
    assert "gateway|ingest|preprocessor|trainer|inference" in answer.stderr


@pytest.mark.parametrize("script", ["scripts/dev-up.sh", "scripts/install", "scripts/backup", "scripts/restore"])
def test_help_is_printed(script):
    answer = run(script, "--help")

    assert answer.returncode == 0
    assert script in answer.stdout


def test_an_unknown_option_of_dev_up_is_refused():
    assert run("scripts/dev-up.sh", "--cellar").returncode == 2


@pytest.mark.parametrize("script", ["scripts/backup", "scripts/restore"])
@pytest.mark.parametrize("words", [[], ["--cellar", "x"], ["x", "y"], ["--prod", "README.md"]])
def test_a_backup_is_neither_made_nor_restored_by_words_that_are_not_understood(script, words, tmp_path):
    answer = run(script, *words)

    assert answer.returncode == 2
    assert script.split("/")[1] in answer.stderr
    assert not list(PROJECT.glob("*.part"))


def test_a_backup_that_is_not_there_is_not_restored():
    answer = run("scripts/restore", "/not/there.tar")

    assert answer.returncode == 1
    assert "no file /not/there.tar" in answer.stderr


@pytest.mark.parametrize("script", sorted(p.name for p in (PROJECT / "scripts").iterdir() if p.suffix in ("", ".sh")))
def test_shell_scripts_are_well_formed_and_stop_at_the_first_error(script):
    path = PROJECT / "scripts" / script
    if path.is_dir():
        return

    text = path.read_text()

    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in text
    assert run("bash", "-n", str(path)).returncode == 0
