"""Does a zip arrive whole, or recognisably not, and is every file closed after it?"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from services.gateway.voices.export import zipped
from services.gateway.zips import zip_of


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files, one of which is longer than a piece of a zip."""
    made = [tmp_path / "long.wav", tmp_path / "empty.wav"]
    made[0].write_bytes(bytes(range(256)) * 4096)
    made[1].write_bytes(b"")
    return made


def test_a_zip_comes_in_pieces_and_holds_every_file_to_the_byte(files: list[Path]) -> None:
    pieces = list(zip_of((path.name, path.open("rb")) for path in files))

    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert len(pieces) > 4
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == {p.name: p.read_bytes() for p in files}


def test_a_zip_whose_second_file_vanished_ends_before_its_end(files: list[Path]) -> None:
    pieces = zip_of((path.name, path.open("rb")) for path in files)
    came = [next(pieces)]
    files[1].unlink()

    with pytest.raises(FileNotFoundError):
        came.extend(pieces)

    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(came)))


def test_an_export_that_nobody_reads_to_its_end_leaves_no_file_open(files: list[Path]) -> None:
    opened = [(path.name, path.open("rb")) for path in files]
    export = zipped("anna", opened)
    next(export)

    export.close()

    assert all(source.closed for _, source in opened)
