"""What is in a multipart form, while it is still arriving? Fields whole, files chunk by chunk, nothing spooled."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from libs.common.errors import InvalidInput, TooLarge, TooMany

_EXTENDED_NAME = re.compile(r"""filename\*\s*=\s*utf-8'[^']*'([^;\s]+)""", re.I)
_AS_FORM = ("Send the request as multipart/form-data, as `curl -F files=@recording.wav` does.",)
_AGAIN = ("Send the request again; each part needs its headers and the form its closing boundary.",)


@dataclass(frozen=True)
class Limits:
    """How much of each thing one form may hold; None means no limit of its own."""

    total_bytes: int | None = None
    files: int | None = None
    file_bytes: int | None = None
    fields: int = 100
    field_bytes: int = 65_536
    headers: int = 8
    header_bytes: int = 4096


@dataclass(frozen=True)
class Field:
    """A whole form field."""

    name: str
    value: str


@dataclass(frozen=True)
class FileBegin:
    """A file part begins. `filename` is what the client says: text for people, never part of a path."""

    field: str
    filename: str
    content_type: str


@dataclass(frozen=True)
class FileData:
    """The next bytes of the file part that began last."""

    data: bytes


@dataclass(frozen=True)
class FileEnd:
    """The file part is complete; without this event it is not."""


Event = Field | FileBegin | FileData | FileEnd


async def read_form(
    content_type: str, body: AsyncIterable[bytes], limits: Limits | None = None
) -> AsyncGenerator[Event, None]:
    """The events of a `multipart/form-data` body (RFC 7578), in order, as its chunks arrive.

    Memory is bounded by one chunk of the body and one field. A part with a `filename`, even an empty one, is a file.
    Raises InvalidInput for another content type and for a body that is malformed or ends early, TooLarge and TooMany as
    soon as a limit is passed. What `body` raises passes through. Close the generator when leaving it early.
    """
    reader = _Reader(_boundary(content_type), limits or Limits())
    total = 0
    async for chunk in body:
        total += len(chunk)
        if reader.limits.total_bytes is not None and total > reader.limits.total_bytes:
            raise TooLarge(
                f"the request is larger than {reader.limits.total_bytes} bytes",
                limit_bytes=reader.limits.total_bytes,
                actions=("Send the files in several requests.",),
            )
        for event in reader.feed(chunk):
            yield event
    reader.finish()


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise InvalidInput("the body must be multipart/form-data", field="body", actions=_AS_FORM)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise InvalidInput("the Content-Type names no boundary of 1 to 200 characters", field="body", actions=_AS_FORM)
    return boundary


class _Reader:
    """Turns the parser's callbacks into events."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.limits = limits
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._end,
            },
            max_header_count=limits.headers,
            max_header_size=limits.header_bytes,
        )
        self._events: list[Event] = []
        self._files = 0
        self._fields = 0
        self._is_over = False
        self._forget_part()

    def feed(self, chunk: bytes) -> list[Event]:
        self._events = []
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidInput(f"the form cannot be read: {error}", field="body", actions=_AGAIN) from error
        return self._events

    def finish(self) -> None:
        if not self._is_over:
            raise InvalidInput("the form ends before its closing boundary", field="body", actions=_AGAIN)

    # -- the parser's callbacks ---------------------------------------------------------------------------------------

    def _forget_part(self) -> None:
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._size = 0
        self._value = bytearray()

    def _part_begin(self) -> None:
        self._forget_part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise InvalidInput(
                "a part has no `Content-Disposition: form-data` with a name", field="body", actions=_AS_FORM
            )
        self._name = _text(options[b"name"])
        extended = _EXTENDED_NAME.search(disposition)
        self._is_file = b"filename" in options or extended is not None
        if not self._is_file:
            self._fields += 1
            if self._fields > self.limits.fields:
                raise TooMany(f"the form has more than {self.limits.fields} fields", limit=self.limits.fields)
            return
        self._files += 1
        if self.limits.files is not None and self._files > self.limits.files:
            raise TooMany(
                f"the request holds more than {self.limits.files} files", field=self._name, limit=self.limits.files
            )
        filename = _text(options[b"filename"]) if b"filename" in options else ""
        if not filename and extended is not None:
            filename = unquote(extended[1], errors="replace")
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        self._events.append(FileBegin(self._name, filename, content_type))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_file:
            if self._size > self.limits.field_bytes:
                raise TooLarge(
                    f"the field {self._name[:100]!r} is larger than {self.limits.field_bytes} bytes",
                    field=self._name[:100],
                    limit_bytes=self.limits.field_bytes,
                    actions=("Send a shorter text; a file needs a filename in its part.",),
                )
            self._value.extend(data[start:end])
            return
        if self.limits.file_bytes is not None and self._size > self.limits.file_bytes:
            raise TooLarge(
                f"a file in {self._name[:100]!r} is larger than {self.limits.file_bytes} bytes",
                field=self._name[:100],
                limit_bytes=self.limits.file_bytes,
            )
        self._events.append(FileData(bytes(data[start:end])))

    def _part_end(self) -> None:
        self._events.append(FileEnd() if self._is_file else Field(self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._is_over = True


def _text(raw: bytes) -> str:
    """Names are UTF-8; browsers write quotes and line breaks in them as %22, %0D, %0A."""
    text = raw.decode("utf-8", "replace")
    return text.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n") if "%" in text else text
