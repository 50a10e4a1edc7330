"""How is an `.npy` file of somebody else read? Its header is compared with its length before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.atomic import write_atomically

Float32 = NDArray[np.float32]

MAX_BYTES = 8 * 2**30
MAX_HEADER = 10_000
TOTAL_FEATURES = "total_fea.npy"
"""RVC's name for all content features of an experiment in one array, from which its index was built."""


def read_array(path: Path, *, max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """The array of numbers in the `.npy` file at `path`, of any shape and number type.

    Raises NotFound, and ModelFileRefused for Python objects (which numpy keeps as a pickle), records, a header that
    claims another size than the file has, and more than `max_bytes`.
    """
    if not path.is_file():
        raise NotFound(f"there is no array file {path.name}")
    size = path.stat().st_size
    if size > max_bytes:
        raise ModelFileRefused(f"{path.name} has {size} bytes; the limit is {max_bytes}")
    with path.open("rb") as file:
        try:
            shape, fortran, dtype = _header(file)
        except Exception as error:  # numpy's reader of headers is Python's own parser and raises as it does
            raise ModelFileRefused(f"{path.name} is no readable .npy file: {_first_line(error)}") from error
        if dtype.kind not in "biuf":
            raise ModelFileRefused(f"{path.name} holds {dtype} and not numbers; Python objects are never read")
        if any(type(n) is not int or n < 0 for n in shape):
            raise ModelFileRefused(f"{path.name} claims the shape {shape}")
        claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
        if claimed != there:
            raise ModelFileRefused(f"{path.name} claims an array of {claimed} bytes and has {there}")
        values = np.fromfile(file, dtype=dtype, count=math.prod(shape))
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def read_features(path: Path, *, width: int | None = None, max_bytes: int = MAX_BYTES) -> Float32:
    """RVC's `total_fea.npy` or one of its `3_feature…/….npy`: float32 `[N, 256 | 768]`, 50 rows a second.

    `width`: refuse rows of another width. Half and double precision are converted. Raises as `read_array`, and
    ModelFileRefused for another number of dimensions or values that are not finite.
    """
    values = read_array(path, max_bytes=max_bytes)
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ModelFileRefused(
            f"{path.name} holds {values.dtype} of shape {list(values.shape)}; features are [N, width]"
        )
    if width is not None and values.shape[1] != width:
        raise ModelFileRefused(f"{path.name} has rows of {values.shape[1]} values and {width} are needed")
    if not np.isfinite(values).all():
        raise ModelFileRefused(f"{path.name} holds values that are not finite")
    return np.ascontiguousarray(values, dtype=np.float32)


def write_features(path: Path, features: Float32) -> str:
    """Write features `[N, width]` as RVC's `total_fea.npy`: float32, C order, `.npy` 1.0. Returns the SHA-256 as hex.

    Atomic; raises StorageFull, and ValueError for another shape.
    """
    if features.ndim != 2:
        raise ValueError(f"features are [N, width], not {list(features.shape)}")
    return write_feature_blocks(path, [features], rows=features.shape[0], width=features.shape[1])


def write_feature_blocks(path: Path, blocks: Iterable[Float32], *, rows: int, width: int) -> str:
    """`write_features` for rows that come in `blocks` `[n, width]`, of which one is in memory at a time.

    Atomic; raises StorageFull, and ValueError when the blocks are not `[rows, width]` together.
    """

    def write(stream: IO[bytes]) -> None:
        header = {"descr": npy.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": (rows, width)}
        npy.write_array_header_1_0(stream, header)
        written = 0
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != width:
                raise ValueError(f"a block is [n, {width}], not {list(block.shape)}")
            stream.write(np.ascontiguousarray(block, dtype="<f4").data)
            written += len(block)
        if written != rows:
            raise ValueError(f"{rows} rows were promised and {written} came")

    return write_atomically(path, write)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file, max_header_size=MAX_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file, max_header_size=MAX_HEADER)
    else:
        raise ValueError(f"version {version} of the format is for records, which no features are")
    return shape, fortran, dtype


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
