"""Which quantities of a fixture folder were compared, with what error, and what was left over?"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from libs.voice.reference.facts import Facts


@dataclass(frozen=True)
class Tolerance:
    """Largest error that counts as equal: `atol + rtol * max |reference|`."""

    atol: float = 0.0
    rtol: float = 0.0

    @classmethod
    def of(cls, facts: Facts | None, default: Tolerance | None = None) -> Tolerance:
        """`atol` and `rtol` of a JSON entry; `default` without one."""
        if facts is None:
            return default or NETWORK
        return cls(float(facts.get("atol", 0.0)), float(facts.get("rtol", 0.0)))

    def limit(self, reference: NDArray[Any]) -> float:
        """The error that is allowed for this reference, of any shape."""
        finite = np.abs(reference[np.isfinite(reference)]) if reference.size else reference
        return self.atol + (self.rtol * float(finite.max()) if finite.size and self.rtol else 0.0)


EXACT = Tolerance()
NETWORK = Tolerance(2e-5, 1e-3)
"""Network outputs in float32 on a CPU: of the fixtures' specification, for quantities whose JSON names none."""
DOUBLE = Tolerance(1e-9, 1e-9)
"""Computed in float64 on both sides."""
SINGLE = Tolerance(1e-6, 1e-5)
"""Stored in float32 on both sides, computed in float64."""


@dataclass(frozen=True)
class Row:
    """One compared quantity. `error` is the largest absolute difference, infinite for another shape, type or name."""

    fixture: str
    part: str
    quantity: str
    error: float
    tolerance: float
    ok: bool
    reason: str = ""


class Ledger:
    """The account of one fixture folder: every file and array in it is read as input, compared, or left over."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.rows: list[Row] = []
        self._part = ""
        self._archives: dict[str, dict[str, NDArray[Any]]] = {}
        self._inputs: dict[str, set[str]] = {}
        self._compared: dict[str, set[str]] = {}
        self._files = {path.name for path in folder.iterdir() if path.is_file() and not is_for_people(path)}
        self._used: set[str] = set()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Quantities compared inside belong to `name`; what breaks there is a failed row, and the rest goes on."""
        before, self._part = self._part, name
        try:
            yield
        except Exception as error:  # a broken fixture or an unknown form fails this part, not the whole run
            self.fail("", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300])
        finally:
            self._part = before

    # -- what is there -------------------------------------------------------------------------------------------------

    def file(self, name: str) -> Path:
        """A file of the folder, or beside it (`../other/file`); it counts as checked by whoever asks for it."""
        path = (self.folder / name).resolve()
        if self.folder.resolve().parent not in path.parents:
            raise ValueError(f"{name} lies outside the fixtures")
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        if path.parent == self.folder.resolve():
            self._used.add(path.name)
        return path

    def files(self, suffix: str) -> list[str]:
        """Names of the folder's files that end so, sorted; asking does not count as checking."""
        return sorted(name for name in self._files if name.endswith(suffix))

    def arrays(self, archive: str) -> dict[str, NDArray[Any]]:
        """Everything that an `.npz` file of the folder holds; asking does not count as checking."""
        if archive not in self._archives:
            with np.load(self.file(archive), allow_pickle=False) as stored:
                self._archives[archive] = {key: stored[key] for key in stored.files}
            self._inputs[archive], self._compared[archive] = set(), set()
        return self._archives[archive]

    def given(self, archive: str, key: str) -> NDArray[Any]:
        """An array of any shape that is an input: reading it accounts for it."""
        value = self.arrays(archive)[key]
        self._inputs[archive].add(key)
        return value

    def tensor(self, archive: str, key: str) -> torch.Tensor:
        """`given` as a tensor; of the same shape; half precision upcast to float32."""
        value = self.given(archive, key)
        return torch.from_numpy(value.astype(np.float32) if value.dtype == np.float16 else value.copy())

    # -- comparing -----------------------------------------------------------------------------------------------------

    def check(self, archive: str, key: str, ours: Any, tolerance: Tolerance = EXACT, mask: Any = None) -> None:
        """Compare with a stored output, which accounts for it. `mask`: only these elements count."""
        reference = self.arrays(archive)[key]
        self._compared[archive].add(key)
        self.near(key, ours, reference, tolerance, mask)

    def near(self, quantity: str, ours: Any, reference: Any, tolerance: Tolerance = EXACT, mask: Any = None) -> None:
        """Compare numbers of the same shape; NaN or infinity on our side is an infinite error."""
        mine, theirs = _array(ours), _array(reference)
        if mine.shape != theirs.shape:
            self.fail(quantity, f"shape {list(mine.shape)} instead of {list(theirs.shape)}")
            return
        if mask is not None:
            mine, theirs = mine[mask], theirs[mask]
        difference = np.abs(mine.astype(np.float64) - theirs.astype(np.float64)) if mine.size else np.zeros(1)
        error = float(difference.max())
        error = error if math.isfinite(error) else math.inf
        limit = tolerance.limit(theirs)
        self._add(quantity, error, limit, error <= limit)

    def same(self, quantity: str, ours: Any, reference: Any) -> None:
        """Compare names, lists, settings: equal or not."""
        if ours == reference:
            self._add(quantity, 0.0, 0.0, True)
        else:
            self.fail(quantity, f"{_short(ours)} instead of {_short(reference)}")

    def fail(self, quantity: str, reason: str) -> None:
        """A row that is not right, for a reason that is no number."""
        self._add(quantity, math.inf, 0.0, False, reason)

    def _add(self, quantity: str, error: float, limit: float, ok: bool, reason: str = "") -> None:
        self.rows.append(Row(self.name, self._part, quantity, error, limit, ok, reason))

    # -- what is left over ---------------------------------------------------------------------------------------------

    def inputs(self) -> list[str]:
        """Arrays that were given to the networks and are compared with nothing."""
        return sorted(
            f"{archive}: {key}" for archive in self._inputs for key in self._inputs[archive] - self._compared[archive]
        )

    def documented(self, archive: str, facts: Facts) -> None:
        """Compare the JSON's list of arrays (name → shape, dtype) with those that are there."""
        listed = facts.take()
        held = self.arrays(archive)
        for key, about in listed.items():
            shape, dtype = (about["shape"], about["dtype"]) if isinstance(about, dict) else (about, None)
            value = held.get(key)
            if value is None:
                self.fail(key, f"listed in the JSON, and not in {archive}")
            elif list(value.shape) != list(shape) or (dtype is not None and str(value.dtype) != dtype):
                self.fail(key, f"{archive} has {value.dtype} {list(value.shape)}, the JSON says {dtype} {shape}")
        for key in sorted(held.keys() - listed.keys()):
            self.fail(key, f"in {archive}, and not listed in the JSON")

    def close(self, documents: dict[str, Facts]) -> None:
        """Every file, array and JSON entry that nobody checked becomes a failed row."""
        with self.part("not checked"):
            for archive in self.files(".npz"):
                held = self.arrays(archive)
                for key in sorted(held.keys() - self._inputs[archive] - self._compared[archive]):
                    self.fail(f"{archive}: {key}", "no check knows this array")
            for name, facts in documents.items():
                self._used.add(name)
                for path in facts.unread():
                    self.fail(f"{name}: {path}", "no check knows this entry")
            for name in sorted(self._files - self._used):
                self.fail(name, "no check knows this file")


def is_for_people(path: Path) -> bool:
    """Files that hold no quantity."""
    return path.name.startswith((".", "README")) or path.suffix in (".md", ".txt")


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"
