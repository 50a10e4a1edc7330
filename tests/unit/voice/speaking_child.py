"""A process that speaks the protocol of libs/voice/xtts/serving.py without the library: `python speaking_child.py`

What it does stands in SPEAKING_CHILD at its start (missing, die, mute; brisk: nothing is slow), then in the text:
silence, endless, sometimes, nan, die, hang, slow, refuse, many (too many tokens); other pieces become noise.
While SPEAKING_GATE names a file that is not there, nothing is said.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

RATE = 24_000


def say(kind: str, content: bytes = b"", **values: object) -> None:
    sys.stdout.buffer.write((json.dumps({"kind": kind, **values}) + "\n").encode() + content)
    sys.stdout.buffer.flush()


def main() -> None:
    mode = os.environ.get("SPEAKING_CHILD", "")
    if mode == "missing":
        say("missing", packages=["coqui-tts", "torchaudio"])
        return
    if mode == "die":
        print("no such library", file=sys.stderr)
        raise SystemExit(3)
    cancelled: set[int] = set()
    orders: list[dict[str, object]] = []
    more = threading.Condition()

    def listen() -> None:
        for line in sys.stdin:
            order = json.loads(line)
            with more:
                cancelled.add(order["cancel"]) if "cancel" in order else orders.append(order)
                more.notify()
        os._exit(30)

    threading.Thread(target=listen, daemon=True).start()
    say("ready")
    while True:
        with more:
            more.wait_for(lambda: bool(orders))
            order = orders.pop(0)
        answer(order, cancelled)


def answer(order: dict, cancelled: set[int]) -> None:
    number, text = order["id"], order["text"]
    wave = 0.1 * np.random.default_rng(order["seed"]).standard_normal(int(RATE * len(text) / 15))
    ended = True
    while (gate := os.environ.get("SPEAKING_GATE")) and not Path(gate).exists():
        time.sleep(0.01)
    if "die" in text:
        os._exit(9)
    if "hang" in text:
        time.sleep(3600)
    if "slow" in text and os.environ.get("SPEAKING_CHILD") != "brisk":
        until = time.monotonic() + 60
        while time.monotonic() < until and number not in cancelled:
            time.sleep(0.01)
        if number in cancelled:
            say("cancelled", id=number)
            return
    if "refuse" in text:
        say("error", id=number, problem={"code": "model_file_refused", "detail": "voice.pth is damaged"})
        return
    if "many" in text and len(text) > 30:
        say("too_long", id=number)
        return
    if "silence" in text or os.environ.get("SPEAKING_CHILD") == "mute":
        wave[:] = 0
    if "nan" in text:
        wave[:] = np.nan
    if "endless" in text or ("sometimes" in text and order["seed"] % 2):
        ended = False
    content = wave.astype("<f4").tobytes()
    say("sound", content, id=number, ended=ended, bytes=len(content))


if __name__ == "__main__":
    main()
