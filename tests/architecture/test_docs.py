"""Do the documents say what the code is?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from libs.client.cli import app
from libs.common.settings import PORTS
from scripts import docs_tables

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def tracked(*patterns: str) -> list[str]:
    """Files under version control, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_the_generated_tables_are_those_of_the_code():
    assert [str(path.relative_to(PROJECT)) for path in docs_tables.outdated()] == []


def test_a_changed_setting_would_be_noticed():
    text = "<!-- generated: events -->\nold\n<!-- end -->\n"

    assert "TrainVoice" in docs_tables.renewed(text)
    assert docs_tables.renewed(docs_tables.renewed(text)) == docs_tables.renewed(text)


def test_the_readmes_tree_is_the_projects_tree():
    tree = re.search(r"```text\n(libs/.*?)```", README, re.S)
    assert tree is not None
    named = {line.split()[0].rstrip("/") for line in tree[1].splitlines() if line.strip()}

    folders = {
        "/".join(Path(file).parts[:depth]) for file in tracked() for depth in (1, 2) if len(Path(file).parts) > depth
    }
    expected = {
        folder
        for folder in folders
        if folder.split("/")[0] in ("libs", "services", "deploy") or "/" not in folder
        if not folder.startswith(".")
    } - {"libs", "services", "deploy"}

    assert {path for path in named if not (PROJECT / path).exists()} == set()
    assert expected - named == set()


def test_links_between_documents_lead_somewhere():
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8")):
            if not (document.parent / target).exists():
                broken.append(f"{document.relative_to(PROJECT)} → {target}")

    assert broken == []


def test_the_readmes_commands_exist():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))

    named = set(re.findall(r"(?:^|`|\d )make ([a-z-]+)", README, re.M))

    assert named - targets == set()
    assert {"demo", "test", "check"} <= named


def test_the_readme_shows_a_picture_of_the_five_services_and_its_two_commands():
    picture, *_ = re.findall(r"```\n(.*?)```", README, re.S)
    boxes = {word for line in picture.splitlines() for word in re.findall(r"[│║] +([a-z]+) +[│║]", line)}
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))

    services = {path.parent.name for path in (PROJECT / "services").glob("*/__main__.py")}
    assert services <= boxes
    assert "git clone" in shell
    assert "make demo" in shell


def test_what_the_readme_names_is_there():
    """Paths, programs of the project, and the port at which people find the API."""
    named = set(re.findall(r"`((?:scripts|libs|services|docs|deploy|tests)/[\w./-]+)`", README))
    programs = set(re.findall(r"\.venv/bin/([\w-]+)", README))
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", README)}

    assert {path for path in named if not (PROJECT / path).exists()} == set()
    assert programs == {"voicewright"}
    assert "voicewright = " in (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert ports == {PORTS["gateway"]}


def test_the_readmes_commands_of_the_command_line_are_known_to_it():
    named = re.findall(r"^\.venv/bin/voicewright ([a-z]+)", README, re.M)
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name or group.typer_instance.info.name for group in app.registered_groups}

    assert {"login", "upload", "train", "convert"} <= set(named)
    assert set(named) - known == set()


def test_no_document_calls_a_script_in_a_way_that_does_not_find_the_project():
    """As a file a script of Python has its own folder before it, and not the project's."""
    called = [
        f"{path}: {call}"
        for path in tracked("*.md", "scripts/*.py")
        for call in re.findall(r"python3? scripts/\S+\.py", (PROJECT / path).read_text(encoding="utf-8"))
    ]

    assert called == []


MODELS = (PROJECT / "docs" / "models.md").read_text(encoding="utf-8").replace("\\\n", " ")
RECIPES = re.findall(r"^ +python -m (scripts\.\S+)(.*)$", MODELS, re.M)


@pytest.mark.parametrize("module", sorted({module for module, _ in RECIPES}))
def test_a_recipe_of_the_shipped_models_starts_and_knows_its_options(module: str):
    shown = subprocess.run([sys.executable, "-m", module, "--help"], cwd=PROJECT, capture_output=True, text=True)

    assert shown.returncode == 0, shown.stderr
    for _, words in (call for call in RECIPES if call[0] == module):
        assert set(re.findall(r"--[a-z-]+", words)) <= set(re.findall(r"--[a-z-]+", shown.stdout))


def test_every_service_says_what_it_is():
    """Its package's docstring is one sentence, and it starts as a module."""
    for service in ("gateway", "ingest", "preprocessor", "trainer", "inference"):
        folder = PROJECT / "services" / service
        assert (folder / "__main__.py").is_file(), service
        assert re.match(r'"""[^\n]+"""', (folder / "__init__.py").read_text(encoding="utf-8")), service


def test_every_decision_has_its_four_parts():
    for page in sorted((PROJECT / "docs" / "decisions").glob("*.md")):
        text = page.read_text(encoding="utf-8").lower()
        missing = [part for part in ("context", "decision", "consequences", "alternatives") if part not in text]
        assert missing == [], f"{page.name} lacks {missing}"


@pytest.mark.parametrize("words", [r"TO" r"DO\b", r"FIX" r"ME\b", r"(^|[^a-z.])/(home|root|Users)/[a-z]"])
def test_no_left_over_of_writing(words):
    found = subprocess.run(
        ["git", "grep", "-lE", words, "--", ":!tests/architecture"], cwd=PROJECT, capture_output=True, text=True
    )

    assert found.stdout.splitlines() == []
