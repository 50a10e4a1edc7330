"""What happens to a job, live? Server-sent events that survive a broken connection: nothing missing, nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx

from libs.client.errors import ApiProblem, NotReachable
from libs.client.http import RETRIED, Connection
from libs.client.models import FeedEvent

SILENCE = 60.0  # seconds; the gateway sends a comment every 15


def parse(lines: Iterator[str]) -> Iterator[FeedEvent]:
    """Events of a text/event-stream; comments and events without data or a whole number as id are skipped."""
    event_id, kind, data = "", "message", list[str]()
    for line in lines:
        if line == "":
            if data and event_id.isdigit():
                yield FeedEvent(id=int(event_id), kind=kind, data=json.loads("\n".join(data)))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def follow(
    connection: Connection, path: str, *, after: int | None = None, patience: float = 600.0, pause: float = 0.5
) -> Iterator[FeedEvent]:
    """Every event of the feed at `path` until the job is over, over as many connections as it takes.

    `after`: the id of the last event that is known already. Gives up with NotReachable after `patience` seconds
    without any answer; `pause` is the first wait between connections, which doubles up to five seconds.
    """
    last, silent_since, wait = after, time.monotonic(), pause

    def heard(lines: Iterator[str]) -> Iterator[str]:
        """Every line, comments too, is a sign of life; a connection alone is none."""
        nonlocal silent_since, wait
        for line in lines:
            silent_since, wait = time.monotonic(), pause
            yield line

    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last is not None else {})}
        try:
            timeout = httpx.Timeout(10.0, read=SILENCE)
            with connection.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code == 204:  # everything was told already
                    return
                for event in parse(heard(response.iter_lines())):
                    if last is not None and event.id <= last and event.kind != "snapshot":
                        continue
                    last = event.id
                    yield event
                    if event.is_last:
                        return
        except ApiProblem as problem:
            if problem.status not in RETRIED:
                raise
        except (NotReachable, httpx.TransportError):
            pass
        if time.monotonic() - silent_since > patience:
            raise NotReachable(
                f"The live feed of {connection.url} has been silent for {patience:.0f} s; the job goes on."
            )
        time.sleep(wait)
        wait = min(5.0, wait * 2)
