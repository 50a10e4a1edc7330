"""The event files are TensorBoard's: records with checksums, and inside them what was written."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.voice.event_file import EventFile, crc32c

Event = dict[int, list[Any]]


def bitwise_crc32c(data: bytes) -> int:
    """RFC 3720's polynomial, one bit at a time, without a table."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 * (value & 1))
    return value ^ 0xFFFFFFFF


def unmasked(value: int) -> int:
    rotated = (value - 0xA282EAD8) % 2**32
    return (rotated >> 17 | rotated << 15) % 2**32


def records(path: Path) -> Iterator[bytes]:
    """The data of each record, both checksums compared."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        (of_length,) = struct.unpack("<I", data[8:12])
        content, data_end = data[12 : 12 + length], 12 + length
        (of_content,) = struct.unpack("<I", data[data_end : data_end + 4])
        assert unmasked(of_length) == bitwise_crc32c(data[:8])
        assert unmasked(of_content) == bitwise_crc32c(content)
        yield content
        data = data[data_end + 4 :]


def message(data: bytes) -> Event:
    """A protobuf message as field number → values."""
    fields: Event = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value = varint()
        elif kind == 1:
            (value,) = struct.unpack("<d", data[place : place + 8])
            place += 8
        elif kind == 5:
            (value,) = struct.unpack("<f", data[place : place + 4])
            place += 4
        else:
            length = varint()
            value = data[place : place + length]
            place += length
        fields.setdefault(number, []).append(value)
    return fields


def scalars(path: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of every scalar in the file."""
    found = []
    for event in map(message, records(path)):
        for summary in event.get(5, []):
            for value in message(summary).get(1, []):
                held = message(value)
                found.append((event[2][0], held[1][0].decode(), held[2][0]))
    return found


@pytest.mark.parametrize(("data", "checksum"), [(b"123456789", 0xE3069283), (b"\x00" * 32, 0x8A9136AA), (b"", 0)])
def test_the_checksum_is_that_of_the_standard(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_scalars_come_back_with_step_tag_and_value(tmp_path: Path) -> None:
    file = EventFile(tmp_path, 1)
    file.scalars(1, {"loss/mel": 36.5, "loss/kl": -0.25})
    file.scalars(300, {"validation/loss": 1e39})
    file.close()

    (path,) = tmp_path.iterdir()
    events = [message(each) for each in records(path)]

    assert path.name.startswith("events.out.tfevents.")
    assert events[0][3] == [b"brain.Event:2"]
    assert all(event[1][0] > 1.7e9 for event in events)
    assert scalars(path) == [(1, "loss/mel", 36.5), (1, "loss/kl", -0.25), (300, "validation/loss", math.inf)]


def test_each_start_has_its_own_file_that_says_from_where_older_ones_are_void(tmp_path: Path) -> None:
    for first in (1, 41):
        EventFile(tmp_path, first).close()

    starts = sorted(message(list(records(path))[1])[2][0] for path in tmp_path.iterdir())
    assert starts == [1, 41]
    assert all(message(message(list(records(path))[1])[7][0])[1] == [1] for path in tmp_path.iterdir())
