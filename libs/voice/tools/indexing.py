"""How does an index become features again, and features an index? RVC's `total_fea.npy` and its two index files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from libs.common.errors import NotFound
from libs.voice.array_file import Float32, read_features, write_feature_blocks
from libs.voice.retrieval import build_index, read_index, write_rvc_files


def write_total_features(index: Path, output: Path) -> int:
    """The vectors of an `.index` (RVC's, Applio's or ours) as RVC's `total_fea.npy`: float32 `[N, 256 | 768]`.

    Returns N. They are the rows that the index was built from, in its order: shuffled, and k-means centres where RVC's
    rule reduces (above 200,000 frames). 8192 rows are in memory beside the index. Atomic; raises NotFound,
    ModelFileRefused, StorageFull.
    """
    held = read_index(index)
    write_feature_blocks(output, held.blocks(), rows=held.rows, width=held.width)
    return held.rows


def build_rvc_index(features: Path, folder: Path, name: str) -> tuple[Path, Path]:
    """RVC's `trained_…` and `added_…` of a voice `name` in `folder`, from features at 50 frames a second.

    `features`: a `total_fea.npy`, or a folder of `.npy` files (`3_feature256`, `3_feature768`), taken in the order of
    their names and without RVC's piece of silence. Returns both paths. Raises NotFound, ModelFileRefused, DatasetEmpty,
    InvalidInput for files of several widths, StorageFull.
    """
    if not features.is_dir():
        files = [features]
    elif not (files := sorted(path for path in features.glob("*.npy") if path.stem != "mute")):
        raise NotFound(f"there is no .npy file in {features.name}")
    widths: list[int] = []

    def arrays() -> Iterator[Float32]:
        for path in files:
            rows = read_features(path)
            widths.append(rows.shape[1])
            yield rows

    built = build_index(arrays())
    return write_rvc_files(built, folder, name, "v1" if widths[0] == 256 else "v2")
