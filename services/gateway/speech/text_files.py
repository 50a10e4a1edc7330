"""Which texts does a file hold? A line each, or a table whose head names the column `text`.

text/plain   each line that is not empty is a text
text/csv     name,text,voice,language   columns in any order, with commas, semicolons, tabs or bars between them;
             morning,Good morning.,,    a cell that is empty is one that was not sent
             or, without a head, LJSpeech's metadata.csv: name|text or name|text|normalised text
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from pydantic import ValidationError

from libs.common.errors import InvalidInput
from libs.common.invalid import message_of
from services.gateway.speech.schemas import OneText

_SEPARATORS = (",", ";", "\t", "|")
_COLUMNS = ("text", "name", "voice", "language")


def read_lines(content: bytes) -> list[OneText]:
    """The texts of a plain file. Raises InvalidInput for what is not UTF-8, or holds none."""
    lines = _decoded(content).splitlines()
    return _some([_text(number, {"text": line.strip()}) for number, line in enumerate(lines, 1) if line.strip()])


def read_table(content: bytes) -> list[OneText]:
    """The texts of a table. Raises InvalidInput, which names the line, for what is none."""
    text = _decoded(content)
    head = text.lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    separator = next((each for each in _SEPARATORS if "text" in _names(head, each)), None)
    if separator is not None:
        return _some([_text(number, row) for number, row in _rows(text, separator)])
    if "|" in head:
        return _some([_text(number, row) for number, row in _ljspeech(text)])
    raise InvalidInput(
        "the first line of the table names no column `text`",
        field="body",
        actions=(f"Begin it with the columns' names, such as {','.join(_COLUMNS)}.",),
    )


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the file is not UTF-8 at byte {error.start}", field="body", actions=("Save it as UTF-8.",)
        ) from error


def _names(head: str, separator: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in head.split(separator)]


def _rows(text: str, separator: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with its line, by the names of the head."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] = []
    try:
        for cells in reader:
            filled = [cell.strip() for cell in cells]
            if not any(filled):
                continue
            if not columns:
                columns = [cell.lower() for cell in filled]
                _check_columns(columns)
                continue
            if len(filled) > len(columns):
                raise InvalidInput(
                    f"line {reader.line_num} of the table has {len(filled)} cells; its head names {len(columns)}",
                    field="body",
                    actions=("Put a text that has separators into double quotes.",),
                )
            yield reader.line_num, dict(zip(columns, filled, strict=False))
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num} of the table cannot be read: {error}", field="body") from error


def _check_columns(columns: list[str]) -> None:
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown or len(set(columns)) < len(columns):
        said = f"has no use for the column {unknown[0][:40]!r}" if unknown else "names a column twice"
        raise InvalidInput(f"the table {said}", field="body", actions=(f"Use {', '.join(_COLUMNS)}.",))


def _ljspeech(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, *rest = (cell.strip() for cell in line.split("|"))
        said = next((cell for cell in reversed(rest) if cell), "")
        if not said:
            raise InvalidInput(f"line {number} of the table is not of the form name|text", field="body")
        yield number, {"name": name, "text": said}


def _text(number: int, cells: dict[str, str]) -> OneText:
    try:
        return OneText.model_validate({name: cell for name, cell in cells.items() if cell or name == "text"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"line {number}: {where}: {message_of(first)}", field="body") from None


def _some(texts: list[OneText]) -> list[OneText]:
    if not texts:
        raise InvalidInput("the file holds no text", field="body", actions=("Write a line for each text.",))
    return texts
