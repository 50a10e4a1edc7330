"""Does `make demo` make what it promises, use it again, and leave no process?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import processes
from scripts.stack import PROJECT
from scripts.stack_members import read_state

ASSETS = PROJECT / "libs" / "voice" / "assets"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


LOOPBACK_ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="session")
def without_network() -> list[str]:
    """What makes a command see no network but its own loopback; nothing where a user may not have such a namespace."""
    apart = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_ALONE]
    if not shutil.which("unshare") or subprocess.run([*apart, "/bin/true"], capture_output=True).returncode:
        return []
    return apart


def demo(root: Path, *arguments: str, apart: Sequence[str] = ()) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "VOICE_CORPUS"}
    return subprocess.Popen(
        [*apart, sys.executable, "-m", "scripts.demo", "--root", str(root), "--no-keep", *arguments],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_demo_makes_a_voice_and_an_honest_report(tmp_path, without_network):
    first = demo(tmp_path / "demo", "--minutes", "0.2", apart=without_network)
    output, _ = first.communicate(timeout=800)

    assert first.returncode == 0, output
    assert "speech made by espeak-ng" in output
    assert "/docs" in output
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert list(report["rows"]) == [
        "source",
        "copy-synthesis of the source",
        "converted",
        "unrelated clip of the target",
    ]
    assert report["rows"]["source"]["phone_agreement"] == 1.0
    control, converted = report["rows"]["unrelated clip of the target"], report["rows"]["converted"]
    assert control["phone_agreement"] < 0.5 < report["rows"]["copy-synthesis of the source"]["f0_correlation"]
    assert control["similarity_target"] > converted["similarity_target"]
    assert not converted["is_silent"]
    assert report["losses"]
    assert {"upload", "preprocess", "train", "convert"} <= set(report["seconds_by_stage"])
    assert (tmp_path / "demo" / "converted.wav").read_bytes()[:4] == b"RIFF"
    assert (tmp_path / "demo" / "report.png").read_bytes()[:4] == b"\x89PNG"

    card = json.loads(next((tmp_path / "demo" / "models").glob("*/versions/*/voice.json")).read_text())
    shipped = {name: json.loads((ASSETS / f"voicewright-{name}.json").read_text()) for name in ("content", "lite")}
    assert card["content_encoder"]["checksum"] == shipped["content"]["sha256"]
    assert shipped["lite"]["sha256"] in json.dumps(card["training"]["bases"])

    again = demo(tmp_path / "demo", "--minutes", "0.1")
    output, _ = again.communicate(timeout=800)

    assert again.returncode == 0, output
    assert "is there already" in output


def test_ctrl_c_in_the_middle_leaves_no_process(tmp_path):
    running = demo(tmp_path / "demo", "--minutes", "5")
    end = time.monotonic() + 120
    state = None
    while time.monotonic() < end and not (state and state["ready"]):
        state = read_state(tmp_path / "demo")
        time.sleep(0.1)
    assert state is not None
    time.sleep(5)  # somewhere in the upload or the preparation

    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=120)

    assert running.returncode == 130, output
    assert processes.wait_gone([member["pid"] for member in state["members"].values()], 0) == []


def test_a_folder_without_recordings_is_refused_before_anything_starts(tmp_path):
    refused = demo(tmp_path / "demo", "--voice", str(tmp_path))
    output, _ = refused.communicate(timeout=120)

    assert refused.returncode == 1
    assert "holds 0 sound files" in output
    assert not (tmp_path / "demo" / "nats").exists()


@pytest.mark.skipif(not (PROJECT / ".venv").is_dir(), reason="make works in .venv, which `make install` makes")
def test_the_command_of_the_readme_hands_a_folder_over(tmp_path):
    ran = subprocess.run(
        ["make", "demo", f"VOICE={tmp_path}"], cwd=PROJECT, capture_output=True, text=True, timeout=600
    )

    assert ran.returncode != 0
    assert f"{tmp_path} holds 0 sound files" in ran.stdout + ran.stderr
