"""Was what the documents tell people to do really done, every command of it?"""

from __future__ import annotations

import re

import pytest

from tests.deploy.files import PROJECT

LOG = (PROJECT / "docs" / "proofs" / "operations-followed.log").read_text(encoding="utf-8")
OPERATIONS = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
FILE = re.compile(r"\S+\.tar\b")


def commands(text: str) -> list[str]:
    """The commands of a document's shell blocks that start something of ours, without their comments."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    said = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in said if re.match(r"(scripts/|\.venv/|[A-Z_]+=\S+ make )", line)]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


FOLLOWED = {FILE.sub("FILE", found.strip()) for found in re.findall(r"^ *\d+ s  \$ (.*)$", LOG, re.M)}


@pytest.mark.parametrize("command", [*commands(section(README, "In containers")), *commands(OPERATIONS)])
def test_every_command_of_the_documents_was_followed(command: str) -> None:
    assert any(done.startswith(FILE.sub("FILE", command)) for done in FOLLOWED), command


def test_what_was_followed_worked_and_names_no_place_of_its_machine() -> None:
    assert "NOT healthy" not in LOG
    assert "the same sound" in LOG
    for command, said, status in re.findall(r"^ *\d+ s  \$ (.*)\n((?: {12}.*\n)*) *\d+ s  status (\d+)$", LOG, re.M):
        is_count_of_none = "grep -c" in command
        is_refusal = command.startswith("scripts/restore") and "Stop all services, then restore." in said
        assert status == "0" or is_count_of_none or is_refusal, command
    assert not re.search(r"(^|[^a-z.])/(home|root|tmp|work|Users)/", LOG)
