"""How are curves written for TensorBoard? Its event files, made here: scalars need neither TensorFlow nor protobuf.

A file is a row of records: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little
endian (TensorFlow's TFRecord). The data is an `Event` message (tensorflow/core/util/event.proto): wall_time 1 double,
step 2 int64, file_version 3 string, summary 5 (value 1: tag 1 string, simple_value 2 float), session_log 7 (status 1).
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from libs.voice.atomic import storage_full_told

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_START = b"\x08\x01"  # SessionLog.START: TensorBoard forgets what an earlier file says from this step on


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, B.4) of `data`."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """TFRecord's masking: a checksum over data that holds checksums would otherwise be weak."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """`data` as one record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked(crc32c(length))), data, struct.pack("<I", masked(crc32c(data)))))


class EventFile:
    """One event file of a run, for appending; each start of the run makes another one in the same folder."""

    def __init__(self, folder: Path, from_step: int) -> None:
        """TensorBoard drops what older files hold from `from_step` on: steps that a killed run did and lost."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
        numbers = (number for number in range(1000) if not (folder / f"{name}.{number}").exists())
        self._stream = (folder / f"{name}.{next(numbers)}").open("ab")
        self._write(_field(3, b"brain.Event:2"))
        self._write(_varint_field(2, from_step) + _field(7, _START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One event with a value per tag; raises StorageFull."""
        summary = b"".join(
            _field(1, _field(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, _single(value)))
            for tag, value in values.items()
        )
        self._write(_varint_field(2, step) + _field(5, summary))

    def close(self) -> None:
        """Everything is on its way to the disk already."""
        self._stream.close()

    def _write(self, event: bytes) -> None:
        with storage_full_told("the event file"):
            self._stream.write(record(struct.pack("<Bd", 1 << 3 | 1, time.time()) + event))
            self._stream.flush()


def _single(value: float) -> float:
    # what does not fit into a float32 is shown as infinite, and not refused
    return value if not math.isfinite(value) or abs(value) < 3.4e38 else math.copysign(math.inf, value)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint_field(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value)


def _varint(value: int) -> bytes:
    rest = bytearray()
    while value > 0x7F:
        rest.append(value & 0x7F | 0x80)
        value >>= 7
    rest.append(value)
    return bytes(rest)
