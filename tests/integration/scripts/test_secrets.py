"""Are secrets random, kept, and readable by their owner alone?"""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts.secret_file import ensure_secrets, read_secrets

PROJECT = Path(__file__).resolve().parents[3]


def test_new_secrets_are_long_different_and_private(tmp_path):
    first, second = ensure_secrets(tmp_path / "a"), ensure_secrets(tmp_path / "b")

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    for name in ("SERVICE_TOKEN", "JWT_SECRET", "ADMIN_PASSWORD"):
        assert first[name] != second[name]
        assert len(first[name]) >= 24


def test_what_a_person_wrote_stays_and_what_is_missing_is_added(tmp_path):
    file = tmp_path / ".env"
    file.write_text("# mine\nADMIN_EMAIL=me@example.com\nJWT_SECRET=\nOTHER=x=y\n")

    found = ensure_secrets(file)

    assert found["ADMIN_EMAIL"] == "me@example.com"
    assert found["OTHER"] == "x=y"
    assert len(found["JWT_SECRET"]) >= 32
    assert file.read_text().startswith("# mine\n")
    assert ensure_secrets(file) == read_secrets(file) == found


def test_the_script_says_names_and_never_values(tmp_path):
    result = subprocess.run(
        [PROJECT / "scripts" / "secrets", str(tmp_path / ".env")], capture_output=True, text=True, check=True
    )

    values = read_secrets(tmp_path / ".env")
    assert "SERVICE_TOKEN" in result.stdout
    assert not any(value in result.stdout for name, value in values.items() if name != "ADMIN_EMAIL")
