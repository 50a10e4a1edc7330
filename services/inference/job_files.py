"""What does a job over many inputs keep of each? A sound and a record, which the next owner of the lease takes over."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.manifests import write_whole
from libs.common.paths import ConvertedFiles, Paths

DEATHS = 3
"""So many workers may end in the middle of one input before it is given up."""


class FileRecord(BaseModel):
    """What became of one input. `sound` is its file below DATA_ROOT, None when `problem` says why there is none."""

    model_config = ConfigDict(frozen=True)

    number: int
    name: str
    sound: str | None = None
    seconds: float = 0.0
    sample_rate: int = 0
    size: int = 0
    sha256: str = ""
    compute_seconds: float = 0.0
    voice_version: str = ""
    voice_sha256: str = ""
    attempt: int = 1
    problem: dict[str, Any] | None = None


@dataclass(frozen=True)
class JobFiles:
    """Where a job that makes sounds reads and writes: this attempt's folder, and those before it, newest first."""

    paths: Paths
    job_id: str
    own: ConvertedFiles
    earlier: tuple[ConvertedFiles, ...]

    @classmethod
    def of(cls, paths: Paths, job_id: str, own: Path, earlier: list[Path]) -> JobFiles:
        return cls(paths, job_id, ConvertedFiles(own), tuple(ConvertedFiles(folder) for folder in earlier))

    def known(self, number: int, attempt: int) -> FileRecord | None:
        """The record that an earlier owner left, if its sound is whole; refusals count in the same attempt only."""
        for folder in (self.own, *self.earlier):
            try:
                record = FileRecord.model_validate_json(folder.record(number).read_bytes())
                if record.sound is not None:
                    return self._take_over(record)
            except (OSError, ValidationError):
                continue
            if record.attempt == attempt:
                return record
        return None

    def _take_over(self, record: FileRecord) -> FileRecord:
        """The record with its sound in this attempt's folder, so that the earlier one may go. Raises OSError."""
        assert record.sound is not None
        there = self.paths.in_data(record.sound)
        if there.stat().st_size != record.size:
            raise FileNotFoundError(record.sound)
        here = self.own.sound(record.number, there.suffix.lstrip("."))
        if here != there:
            here.parent.mkdir(parents=True, exist_ok=True)
            here.unlink(missing_ok=True)
            os.link(there, here)
            record = record.model_copy(update={"sound": self.paths.relative(here)})
            self.keep(record)
        return record

    def nobody_died(self) -> None:
        """Takes away the marks of this attempt: its end is nobody's fault."""
        for mark in self.own.begun(0).parent.glob("*"):
            mark.unlink(missing_ok=True)

    def deaths(self, number: int) -> int:
        """How many earlier owners ended in the middle of this input."""
        return sum(folder.begun(number).exists() for folder in self.earlier)

    def keep(self, record: FileRecord) -> FileRecord:
        """Writes the record, which says that its input is done; whole and on disk, or not there."""
        write_whole(self.own.record(record.number), record.model_dump_json(indent=1).encode())
        return record
