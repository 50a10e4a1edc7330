"""XTTS in its true format, random and very small: `python -m tests.xtts_tiny FOLDER`, where coqui-tts is."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts import xtts_base

LANGUAGES = xtts_base.TINY.languages


def write_vocabulary(path: Path) -> None:
    """Its `vocab.json`."""
    xtts_base.write_vocabulary(path, xtts_base.TINY)


if __name__ == "__main__":
    xtts_base.build(Path(sys.argv[1]), xtts_base.TINY)
