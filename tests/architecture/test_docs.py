"""Do the documents say what the code is?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

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
