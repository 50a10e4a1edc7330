"""Which files from elsewhere can this installation use, where do they come from, and how are they recognised?

`assets.json` names each file with its address, SHA-256, size, licence, what needs it and what works without it. The
Python standard library is enough for these modules: they run beside containers, where no environment was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = Path(__file__).with_name("assets.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class AssetError(Exception):
    """Something about an asset is not as it must be; the text says what, and what to do."""


class ManifestFault(AssetError):
    """The list of assets cannot be used."""


class UnknownAsset(AssetError):
    """No set of that name."""


class NotAccepted(AssetError):
    """The licence asks for a consent that was not given."""


class DownloadFailed(AssetError):
    """It could not be fetched."""


class WrongContents(AssetError):
    """It is not the file that was published: its checksum or length differs."""


class NoRoom(AssetError):
    """The disk is too full."""


@dataclass(frozen=True)
class AssetFile:
    """One file. `path`: below the folder of assets; `size`: bytes, None where none was published."""

    path: str
    url: str
    sha256: str
    size: int | None

    def under(self, root: Path) -> Path:
        """Its final place."""
        return root / self.path


@dataclass(frozen=True)
class AssetSet:
    """Files that are of use together. `terms`: what must be accepted by naming `licence`; '' when nothing must be.

    `changes`: what else is different once the files are there; '' when nothing is.
    """

    name: str
    usual: bool
    licence: str
    licence_url: str
    terms: str
    needed_by: str
    without: str
    changes: str
    files: tuple[AssetFile, ...]


def _text(entry: dict[str, Any], field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value:
        raise ManifestFault(f"the list of assets: `{field}` of {entry.get('name', entry.get('path', '?'))} is missing")
    return value


def _file(entry: dict[str, Any]) -> AssetFile:
    path, url, sha256, size = _text(entry, "path"), _text(entry, "url"), _text(entry, "sha256"), entry.get("size")
    if not all(_PART.fullmatch(part) for part in PurePosixPath(path).parts) or path.startswith("/"):
        raise ManifestFault(f"the list of assets: the path {path!r} could leave the folder of assets")
    if not url.startswith(("https://", "http://")):
        raise ManifestFault(f"the list of assets: {url!r} is no web address")
    if not _SHA256.fullmatch(sha256):
        raise ManifestFault(f"the list of assets: {path} has no SHA-256 (64 hexadecimal digits), and cannot be checked")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ManifestFault(f"the list of assets: the size of {path} is {size!r}, not a number of bytes")
    return AssetFile(path, url, sha256, size)


def read_manifest(path: Path = MANIFEST) -> tuple[AssetSet, ...]:
    """Every set of the list. Raises ManifestFault for one that is not whole or names a place outside its folder."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["sets"]
        sets = tuple(
            AssetSet(
                name=_text(entry, "name"),
                usual=bool(entry.get("usual", False)),
                licence=_text(entry, "licence"),
                licence_url=_text(entry, "licence_url"),
                terms=str(entry.get("terms", "")),
                needed_by=_text(entry, "needed_by"),
                without=_text(entry, "without"),
                changes=str(entry.get("changes", "")),
                files=tuple(_file(file) for file in entry["files"]),
            )
            for entry in entries
        )
    except OSError as error:
        raise ManifestFault(f"the list of assets cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestFault(f"the list of assets {path.name} is not whole: {error!r}") from error
    names = [one.name for one in sets] + [file.path for one in sets for file in one.files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ManifestFault(f"the list of assets names {', '.join(sorted(twice))} twice")
    return sets


def choose(sets: Iterable[AssetSet], names: Iterable[str]) -> list[AssetSet]:
    """The sets that are named, the usual ones without a name. Raises UnknownAsset."""
    known = {one.name: one for one in sets}
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise UnknownAsset(f"there is no set {name!r}; known: {', '.join(known)}")
    return [known[name] for name in wanted] or [one for one in known.values() if one.usual]


def check_accepted(sets: Iterable[AssetSet], accepted: Iterable[str]) -> None:
    """Raises NotAccepted with the terms of the first set whose licence needs a consent that was not given."""
    given = set(accepted)
    for one in sets:
        if one.terms and one.licence not in given:
            raise NotAccepted(
                f"{one.name} is under {one.licence}.\n  {one.terms}\n  Read it at {one.licence_url}, and if you accept "
                f"it for yourself, add --accept-licence {one.licence}"
            )
