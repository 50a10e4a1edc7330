"""How does one file come from a web server, or from a folder, when lines break and servers differ?

A download goes on where it broke off (RFC 9110: Range with If-Range), so that a part is never joined to another
edition; where a server cannot do that it begins anew. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.asset_manifest import AssetError, AssetFile, DownloadFailed, WrongContents
from scripts.asset_store import BLOCK, Draft, Progress, check_room, sha256_of

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_WORTH_ANOTHER = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Broken(Exception):
    """The line broke, or the server asks to come again: what came so far is kept, and it is tried again."""


@dataclass(frozen=True)
class Patience:
    """`attempts` that bring nothing in a row end it; `pause`: seconds, doubled each time; `silence`: seconds."""

    attempts: int = 5
    pause: float = 2.0
    silence: float = 60.0


def _opened(file: AssetFile, draft: Draft, silence: float) -> Any:
    """The server's answer, from where `draft` ends where that can be. Raises _Broken, DownloadFailed."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "voicewright-fetch-assets"}
    have, edition = draft.size(), draft.edition()
    if have and edition:
        headers |= {"Range": f"bytes={have}-", "If-Range": edition}
    try:
        # The list admits http and https alone, and urllib follows no redirect to a file of this machine.
        request = urllib.request.Request(file.url, headers=headers)  # noqa: S310
        return urllib.request.urlopen(request, timeout=silence)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            draft.discard()
            raise _Broken("it has no such part") from error
        if error.code in _WORTH_ANOTHER:
            raise _Broken(f"it answers {error.code} {error.reason}") from error
        raise DownloadFailed(f"{file.url} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(getattr(error, "reason", "") or error)) from error


def _receive(file: AssetFile, draft: Draft, silence: float, progress: Progress) -> None:
    """One request: adds what comes to `draft`. Raises _Broken when that was not all of it."""
    with _opened(file, draft, silence) as answer:
        length = answer.headers.get("Content-Length", "")
        expected = int(length) if length.isdigit() else None
        if answer.status == http.client.PARTIAL_CONTENT:
            part = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if part is None or int(part[1]) != draft.size():
                draft.discard()
                raise _Broken("it sent another part than was asked for")
        else:
            # A weak mark does not promise the same bytes, so it cannot be gone on from.
            mark = answer.headers.get("ETag", "")
            strong = mark if mark and not mark.startswith("W/") else answer.headers.get("Last-Modified", "")
            draft.begin(strong)
        before = draft.size()
        total = file.size if file.size is not None else (None if expected is None else before + expected)
        if expected is not None and file.size is not None and before + expected != file.size:
            draft.discard()
            raise WrongContents(
                f"{file.path} is not the published file: {file.url} has {before + expected} bytes, expected "
                f"{file.size}. It was refused"
            )
        check_room(draft.final.parent, 0 if total is None else total - before)
        draft.write(_blocks(answer), progress)
        if total is not None and draft.size() < total:
            raise _Broken(f"it ended after {draft.size()} of {total} bytes")


def _blocks(answer: Any) -> Iterator[bytes]:
    while True:
        try:
            block = answer.read(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


def download(file: AssetFile, root: Path, progress: Progress, patience: Patience = Patience()) -> None:
    """Fetches `file` to its place below `root`, going on with what an earlier run left.

    Raises DownloadFailed (what came is kept for the next run), WrongContents (nothing is kept), NoRoom.
    """
    draft = Draft(file, root)
    if file.size is not None and draft.size() > file.size:
        draft.discard()
    in_vain, furthest = 0, draft.size()
    while True:
        try:
            if file.size is None or draft.size() < file.size:
                _receive(file, draft, patience.silence, progress)
            break
        except _Broken as broken:
            in_vain = 0 if draft.size() > furthest else in_vain + 1
            furthest = max(furthest, draft.size())
            if in_vain >= patience.attempts:
                kept = f"; {draft.size()} bytes are kept for the next try" if draft.size() else ""
                raise DownloadFailed(f"{file.url}: {broken}{kept}") from broken
            time.sleep(patience.pause * 2**in_vain)
        except WrongContents:
            draft.discard()
            raise
    draft.keep()


class Shelf:
    """A folder that holds assets under any name: each file in it is read for its checksum at most once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = [(place, place.stat().st_size) for place in sorted(folder.rglob("*")) if place.is_file()]
        self._checksums: dict[Path, str] = {}

    def _checksum(self, place: Path) -> str:
        if place not in self._checksums:
            self._checksums[place] = sha256_of(place)
        return self._checksums[place]

    def find(self, file: AssetFile) -> Path | None:
        """Where `file` lies, by its checksum. Raises WrongContents when only another file of its name is there."""
        named = [place for place in (self.folder / file.path, self.folder / Path(file.path).name) if place.is_file()]
        others = [place for place, size in self._files if file.size in (None, size) and place not in named]
        for place in (*named, *others):
            if self._checksum(place) == file.sha256:
                return place
        if named:
            raise WrongContents(
                f"{named[0]} is not the published file: SHA-256 {self._checksum(named[0])} of "
                f"{named[0].stat().st_size} bytes, expected {file.sha256}. It was refused"
            )
        return None


def take_from(shelf: Shelf, file: AssetFile, root: Path, progress: Progress) -> bool:
    """Copies `file` from `shelf` to its place below `root`; False when it is not there.

    What was copied is checked again before it gets its name. Raises WrongContents, NoRoom.
    """
    place = shelf.find(file)
    if place is None:
        return False
    draft = Draft(file, root)
    draft.begin("")
    check_room(draft.final.parent, place.stat().st_size)
    try:
        with place.open("rb") as stream:
            draft.write(iter(lambda: stream.read(BLOCK), b""), progress)
    except AssetError:
        draft.discard()
        raise
    draft.keep()
    return True
