"""Files that attack: real payloads, sizes that lie, and forms that two readers would understand differently.

Each case is a file's bytes, the suffix that says which reader it is for, and a pattern of the reason that must be told.
The payload of all of them creates a file named in `proof`.
"""

from __future__ import annotations

from pathlib import Path

from tests.unit.voice.hostile import others, torch_files, zips
from tests.unit.voice.hostile.parts import Case


def all_cases(proof: Path) -> list[Case]:
    """Every file, with payloads that would create `proof`."""
    return [*torch_files.cases(proof), *zips.cases(proof), *others.cases(proof)]
