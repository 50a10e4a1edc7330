"""Which files are recordings?"""

from __future__ import annotations

from pathlib import Path

SOUND = frozenset({".wav", ".mp3", ".m4a", ".mp4", ".aac", ".ogg", ".opus", ".webm", ".flac"})


def sound_files(paths: list[Path]) -> list[Path]:
    """The named files, and the sound files in the named folders and below, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in SOUND)
        else:
            found.append(path)
    return found
