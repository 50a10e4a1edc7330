"""`scripts/fetch-assets`: what is there of the files from elsewhere, and how does the rest get there?"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.asset_download import Patience, Shelf, download, take_from
from scripts.asset_manifest import (
    MANIFEST,
    AssetError,
    AssetFile,
    AssetSet,
    ManifestFault,
    WrongContents,
    check_accepted,
    choose,
    read_manifest,
)
from scripts.asset_store import Draft, check_room, only_one, state
from scripts.secret_file import read_secrets

PROJECT = Path(__file__).resolve().parents[1]
HUB = "https://huggingface.co"


def say(text: str) -> None:
    print(text, flush=True)


def assets_root() -> Path:
    """Where the services look: ASSETS_ROOT of the environment or .env, the containers' ASSETS_FOLDER, or var/assets."""
    env = read_secrets(PROJECT / ".env")
    if given := os.environ.get("ASSETS_ROOT") or env.get("ASSETS_ROOT"):
        return (PROJECT / given).absolute()
    if given := env.get("ASSETS_FOLDER"):
        return (PROJECT / "deploy" / "compose" / given).resolve()
    return PROJECT / "var" / "assets"


class Line:
    """How far a file is: one line that is written over on a terminal, a line at every tenth elsewhere."""

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        self._label, self._total, self._done = label, total, done
        self._began, self._before = time.monotonic(), done
        self._terminal = sys.stdout.isatty()
        self._told = (done * 10 // total) if total else done // 100_000_000
        self._last = 0.0

    def __call__(self, count: int) -> None:
        self._done += count
        step = (self._done * 10 // self._total) if self._total else self._done // 100_000_000
        now = time.monotonic()
        if self._terminal and now - self._last > 0.2:
            self._last = now
            print(f"\r\x1b[K  {self._text(now)}", end="", flush=True)
        elif not self._terminal and step > self._told:
            say(f"  {self._text(now)}")
        self._told = max(step, self._told)

    def _text(self, now: float) -> str:
        speed = (self._done - self._before) / max(now - self._began, 1e-3)
        whole = f" of {self._total / 1e6:.1f}" if self._total else ""
        share = f" ({100 * min(self._done, self._total) // self._total} %)" if self._total else ""
        return f"{self._label}  {self._done / 1e6:.1f}{whole} MB{share}, {speed / 1e6:.1f} MB/s"

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)


@dataclass(frozen=True)
class Found:
    """What is to be said of one set: `there`, `missing`, `in part`, or `other`: a file is not the published one."""

    set: AssetSet
    states: dict[str, str]

    @property
    def state(self) -> str:
        kinds = set(self.states.values())
        if "other" in kinds:
            return "other"
        return kinds.pop() if len(kinds) == 1 else "in part"


def look(sets: Iterable[AssetSet], root: Path, *, by_checksum: bool) -> list[Found]:
    """What is in place of each set."""
    return [Found(s, {f.path: state(f, root, by_checksum=by_checksum) for f in s.files}) for s in sets]


def megabytes(files: Iterable[AssetFile]) -> str:
    sizes = [file.size for file in files]
    if None in sizes:
        return "not published"
    return f"{sum(size or 0 for size in sizes) / 1e6:,.0f} MB"


def tell(found: list[Found], root: Path) -> None:
    """The table of `--list` and `--verify`."""
    say(f"in {root}:")
    for one in found:
        usual = ", fetched when no set is named" if one.set.usual else ""
        say(f"\n{one.set.name}: {one.state} ({megabytes(one.set.files)}, {one.set.licence}{usual})")
        for path, how in one.states.items():
            if how == "other":
                say(f"  {path} is not the published file: your own, or damaged")
            elif one.state == "in part":
                say(f"  {path} is {how}")
        say(f"  needed by  {one.set.needed_by}\n  without it  {one.set.without}")
        if one.set.changes:
            say(f"  with it  {one.set.changes}")


def as_json(found: list[Found], root: Path) -> str:
    sets = [
        {
            "name": one.set.name,
            "state": one.state,
            "files": one.states,
            "licence": one.set.licence,
            "needed_by": one.set.needed_by,
            "without": one.set.without,
        }
        for one in found
    ]
    return json.dumps({"root": str(root), "sets": sets}, indent=2)


def fetch(
    sets: Sequence[AssetSet], root: Path, *, shelf: Shelf | None, replace_others: bool, patience: Patience = Patience()
) -> None:
    """Brings every file of `sets` to its place. Raises AssetError for the first that does not come."""
    missing: list[AssetFile] = []
    for file in (file for one in sets for file in one.files):
        found = state(file, root, by_checksum=True)
        if found == "other" and not replace_others:
            raise WrongContents(
                f"{file.under(root)} is not the published file. If it is your own, leave this set out; if it is "
                "damaged, remove it or add --replace"
            )
        if found == "there":
            say(f"{file.path}: there, checked")
        else:
            missing.append(file)
    check_room(root, sum((file.size or 0) - Draft(file, root).size() for file in missing))
    for file in missing:
        line = Line(file.path, file.size, 0 if shelf else Draft(file, root).size())
        try:
            if shelf is None:
                download(file, root, line, patience)
            elif not take_from(shelf, file, root, line):
                raise AssetError(f"{shelf.folder} holds no file with the checksum of {file.path}: {file.sha256}")
        finally:
            line.end()
        say(f"{file.path}: fetched and checked")


def with_mirror(sets: Iterable[AssetSet], mirror: str) -> list[AssetSet]:
    """The same sets from another server with the same paths; the checksums stay."""
    if not mirror.startswith(("https://", "http://")):
        raise ManifestFault(f"--mirror {mirror!r} is no web address")

    def moved(file: AssetFile) -> AssetFile:
        return replace(file, url=mirror.rstrip("/") + file.url.removeprefix(HUB)) if file.url.startswith(HUB) else file

    return [replace(one, files=tuple(moved(file) for file in one.files)) for one in sets]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/fetch-assets",
        description="Fetches the named sets, or the usual ones: resumed where it broke off, refused when a checksum "
        "differs. Nothing is needed for lite voices. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY).",
    )
    made.add_argument("sets", nargs="*", metavar="SET", help="see --list")
    deed = made.add_mutually_exclusive_group()
    deed.add_argument("--list", action="store_true", help="what is there, by size, and what works without the rest")
    deed.add_argument("--verify", action="store_true", help="the same by checksum; status 1 when a file is another")
    made.add_argument("--json", action="store_true", help="with --list or --verify, for programs")
    made.add_argument("--offline", type=Path, metavar="DIR", help="take the files from DIR, by checksum; no network")
    made.add_argument("--accept-licence", action="append", default=[], metavar="NAME", help="e.g. CPML-1.0")
    made.add_argument("--into", type=Path, metavar="DIR", help="the folder of assets; else where the services look")
    made.add_argument("--mirror", metavar="URL", help=f"a server with the same paths in place of {HUB}")
    made.add_argument("--replace", action="store_true", help="also replace files that are not the published ones")
    made.add_argument("--manifest", type=Path, default=MANIFEST, help=argparse.SUPPRESS)
    return made


def run(options: argparse.Namespace) -> int:
    """What `main` does once its words are read. Raises AssetError."""
    sets = read_manifest(options.manifest)
    root: Path = options.into.absolute() if options.into else assets_root()
    if options.list or options.verify:
        chosen = choose(sets, options.sets) if options.sets else list(sets)
        found = look(chosen, root, by_checksum=options.verify)
        say(as_json(found, root)) if options.json else tell(found, root)
        return 1 if options.verify and any(one.state == "other" for one in found) else 0
    chosen = choose(with_mirror(sets, options.mirror) if options.mirror else sets, options.sets)
    check_accepted(chosen, options.accept_licence)
    if options.offline and not options.offline.is_dir():
        raise AssetError(f"--offline {options.offline}: there is no such folder")
    for one in chosen:
        say(f"{one.name}: {megabytes(one.files)}, licence {one.licence} ({one.licence_url})")
        if one.changes:
            say(f"  with it  {one.changes}")
    with only_one(root):
        shelf = Shelf(options.offline) if options.offline else None
        fetch(chosen, root, shelf=shelf, replace_others=options.replace)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: everything that was asked for is in place; 1: it is not, and why is said; 2: words without sense."""
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except AssetError as error:
        print(f"fetch-assets: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"fetch-assets: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfetch-assets: stopped; what came so far is kept for the next run", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
