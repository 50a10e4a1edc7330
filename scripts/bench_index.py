"""How fast are the two kinds of retrieval index, and how much of the exact answer does each find?

`python -m scripts.bench_index [--frames 200000]`. Frames are content features of the speech in $VOICE_CORPUS by the
built-in encoder, at changed speeds too when there are not enough; queries are frames that are not in the index.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES = 200_000
QUERIES = 2000
SPEEDS = (1.0, 0.9, 1.1, 0.95, 1.05, 0.85, 1.15, 0.8, 1.2)
"""Each speed gives frames of its own: pitch, formants and the grid of frames move."""


def corpus_features(folder: Path, frames: int) -> Iterator[NDArray[np.float32]]:
    """Features of the corpus, recording by recording, until there are `frames` rows."""
    from libs.audio.decode import decode
    from libs.audio.resample import resample
    from libs.voice.content_small import SmallContentEncoder

    encoder = SmallContentEncoder()
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    if not paths:
        raise SystemExit(f"there is no speech below {folder}")
    left = frames
    for speed in SPEEDS:
        for path in paths:
            sound = decode(path)
            found = encoder.encode(resample(sound.wave, round(sound.sample_rate * speed), 16000))[:left]
            yield found
            left -= len(found)
            if left <= 0:
                return


def measure(work: Path, frames: int = FRAMES) -> dict[str, object]:
    """Builds both indices of `frames` rows and searches them. Rows are kept in `work`, so a second run is quicker."""
    from libs.voice.fast_index import build_fast_index, exact_neighbours, recall_of
    from libs.voice.retrieval import build_index

    work.mkdir(parents=True, exist_ok=True)
    kept = work / f"frames-{frames}.npy"
    if not kept.exists():
        corpus = Path(os.environ["VOICE_CORPUS"])
        rows = np.lib.format.open_memmap(kept.with_suffix(".part"), "w+", np.float32, (frames + QUERIES, 768))
        at = 0
        for part in corpus_features(corpus, frames + QUERIES):
            rows[at : at + len(part)] = part
            at += len(part)
        if at < frames + QUERIES:
            raise SystemExit(f"the corpus gives {at} frames, {frames + QUERIES} are needed")
        rows.flush()
        del rows
        kept.with_suffix(".part").replace(kept)
    whole = np.load(kept, mmap_mode="r")
    # the first rows are asked for: recordings that come before those of the index
    queries, rows = np.array(whole[:QUERIES]), whole[QUERIES:]

    def blocks() -> Iterator[NDArray[np.float32]]:
        return (np.array(rows[i : i + 8192]) for i in range(0, len(rows), 8192))

    began = time.perf_counter()
    fast = build_fast_index(blocks)
    figures: dict[str, Any] = {
        "frames": len(rows),
        "fast: built in, s": round(time.perf_counter() - began, 1),
        "fast: lists": fast.built.lists,
        "fast: nprobe": fast.nprobe,
        "fast: peak memory, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    exact = exact_neighbours(blocks(), queries)
    figures["fast: recall@8"] = round(recall_of(fast.built.added, queries, exact), 4)
    figures["fast: searched, frames/s"] = round(_rate(fast.built.added, queries))
    fast.built.added.nprobe = 1
    figures["fast with nprobe 1: recall@8"] = round(recall_of(fast.built.added, queries, exact), 4)
    if frames <= FRAMES:
        began = time.perf_counter()
        rvc = build_index(blocks(), reduce_above=FRAMES)
        figures["rvc: built in, s"] = round(time.perf_counter() - began, 1)
        figures["rvc: lists"] = rvc.lists
        figures["rvc: recall@8"] = round(recall_of(rvc.added, queries, exact), 4)
        figures["rvc: searched, frames/s"] = round(_rate(rvc.added, queries))
    return figures


def _rate(index: Any, queries: NDArray[np.float32]) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        index.search(queries, 8)
        best = min(best, time.perf_counter() - began)
    return len(queries) / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--work", type=Path, default=Path("var/bench/index"))
    given = parser.parse_args()
    print(json.dumps(measure(given.work, given.frames), indent=1))


if __name__ == "__main__":
    main()
