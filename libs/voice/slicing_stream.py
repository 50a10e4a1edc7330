"""How is a recording of any length cut in bounded memory? RVC's slicer fed block by block, with the very same pieces.

What is decided about silence never depends on more than the run of silence that is open (see `slicing`):

    samples   ──────────[ loud ][ silence …………… ][ loud ]──────────────
    sure            up to here ▲                 ▲ its first loud frame settles the run

Everything before the open run belongs to the segment for certain, so full pieces leave at once. A run that is long
enough settles its left edge before it ends, and only the last half second of it is kept. Nothing grows with the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from libs.voice.slicing import (
    Piece,
    PieceSettings,
    SlicerSettings,
    cut_segment,
    frame_rms_between,
    high_pass_coefficients,
    level,
    slicer_frames,
    to_16k,
)

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """A piece before it is levelled: `samples` `[start, end)` of the filtered recording, and its `number`."""

    number: int
    start: int
    end: int
    samples: Float64


class HighPass:
    """RVC's causal high-pass with its state carried from block to block: the bits of filtering all at once."""

    def __init__(self, sample_rate: int) -> None:
        self._b, self._a = high_pass_coefficients(sample_rate)
        self._state = np.zeros(max(len(self._a), len(self._b)) - 1)

    def push(self, block: Float) -> Float64:
        """`block` `[n]` → float64 `[n]`. Samples that are not finite count as 0, or they would spoil what follows."""
        if not len(block):  # scipy would give back a state of whatever was in memory
            return np.zeros(0)
        clean = np.nan_to_num(np.asarray(block), nan=0.0, posinf=0.0, neginf=0.0)
        filtered, self._state = scipy.signal.lfilter(self._b, self._a, clean, zi=self._state)
        return np.asarray(filtered, dtype=np.float64)


class StreamSlicer:
    """Cuts a filtered recording that arrives in blocks: `push` each, then `finish`; both yield what is settled."""

    def __init__(
        self, sample_rate: int, pieces: PieceSettings | None = None, slicer: SlicerSettings | None = None
    ) -> None:
        self._rate = sample_rate
        self._pieces = pieces or PieceSettings()
        self._frames = slicer_frames(sample_rate, slicer or SlicerSettings())
        self._samples = np.zeros(0)
        self._base = 0  # the recording's index of _samples[0]
        self._total = 0
        self._levels = np.zeros(0)
        self._levels_base = 0
        self._seen = 0  # frames whose level is known
        self._run: int | None = None  # first frame of the open run of silence
        self._settled: int | None = None  # where the segment before a long open run ended
        self._clip_start = 0
        self._segment: int = 0  # first frame of the open segment
        self._given = 0  # full pieces that it has given
        self._number = 0
        self._lead: Float64 | None = None  # what a recording keeps that turns out to be silent throughout

    def push(self, block: Float64) -> Iterator[Cut]:
        """`block` float64 `[n]`, filtered."""
        self._samples = np.concatenate((self._samples, block))
        self._total += len(block)
        frames = self._frames
        ready = (self._total + frames.half - frames.window) // frames.hop + 1 if self._total >= frames.window else 0
        yield from self._advance(ready)
        self._forget()

    def finish(self) -> Iterator[Cut]:
        """The end of the recording; call it once."""
        frames = self._frames
        if self._total <= frames.min_length:
            yield from self._rest(self._total)
            return
        yield from self._advance(frames.count(self._total))
        run = self._run
        if run is None or self._seen - run < frames.min_interval:
            yield from self._rest(self._total)
        elif self._settled is None:
            yield from self._rest(self._quietest(run, min(self._seen, run + frames.max_silence)) * frames.hop)
        elif self._lead is not None and len(self._lead):
            # silent throughout: the reference keeps the beginning, up to its quietest frame
            yield Cut(int(self._pieces.numbering == "rvc"), 0, len(self._lead), self._lead)

    def _advance(self, until: int) -> Iterator[Cut]:
        """Learn the levels of the frames before `until` and give what they settle."""
        if until <= self._seen:
            return
        levels = frame_rms_between(self._samples, self._base, self._frames, self._seen, until)
        self._levels = np.concatenate((self._levels, levels))
        silent = np.concatenate(([self._run is not None], levels < self._frames.threshold))
        changes = self._seen + np.flatnonzero(silent[1:] != silent[:-1])
        for frame in changes.tolist():
            if self._run is None:
                self._run = frame
            else:
                yield from self._close_run(self._run, frame)
                self._run = self._settled = self._lead = None
        self._seen = until
        if self._run is not None and self._settled is None and until - self._run > self._frames.long_run:
            yield from self._settle(self._run)
        if self._settled is None:
            sure = self._run if self._run is not None else self._seen
            yield from self._full_pieces(min(sure * self._frames.hop, self._total))

    def _close_run(self, begin: int, end: int) -> Iterator[Cut]:
        """A run of silence ends before frame `end`: forget it, cut there, or take it out (rvc slicer2's four cases)."""
        most = self._frames.max_silence
        leading = begin == 0 and end > most
        middle = end - begin >= self._frames.min_interval and end - self._clip_start >= self._frames.min_length
        if not leading and not middle:
            return
        if end - begin <= most:
            cut = self._quietest(begin, end)
            first, last = (0 if begin == 0 else cut), cut
        else:
            left = self._settled if self._settled is not None else self._quietest(begin, begin + most)
            first, last = left, self._quietest(end - most, end)
            if end - begin <= 2 * most and begin > 0:
                cut = self._quietest(end - most, begin + most)
                first, last = min(first, cut), max(last, cut)
            if begin == 0:
                first = 0
        if self._settled is None:
            yield from self._rest(first * self._frames.hop)
        self._segment, self._clip_start = last, last
        self._given = 0

    def _settle(self, run: int) -> Iterator[Cut]:
        """The open run is so long that its end cannot move its left edge any more."""
        edge = self._quietest(run, run + self._frames.max_silence)
        if run == 0:
            # kept only if nothing but silence follows
            self._lead = self._samples[: edge * self._frames.hop].copy()
        else:
            yield from self._rest(edge * self._frames.hop)
        self._settled = edge

    def _full_pieces(self, sure: int) -> Iterator[Cut]:
        """Pieces of the open segment that stay as they are however it goes on; it reaches sample `sure` at least."""
        tail = (self._pieces.seconds + self._pieces.overlap_seconds) * self._rate
        while sure - self._next_start() > tail:
            start = self._next_start()
            yield self._cut(start, start + int(self._pieces.seconds * self._rate))
            self._given += 1

    def _next_start(self) -> int:
        step = self._pieces.seconds - self._pieces.overlap_seconds
        return self._segment * self._frames.hop + int(self._rate * step * self._given)

    def _rest(self, end: int) -> Iterator[Cut]:
        """The remaining pieces of the open segment, which ends at sample `end`."""
        start = self._segment * self._frames.hop
        if end <= start:
            return
        for i, (begin, finish) in enumerate(cut_segment(start, end, self._rate, self._pieces)):
            if i >= self._given:
                yield self._cut(begin, finish, is_last=finish == end)

    def _cut(self, start: int, end: int, *, is_last: bool = False) -> Cut:
        if is_last and self._pieces.numbering == "rvc":
            self._number += 1
        made = Cut(self._number, start, end, self._samples[start - self._base : end - self._base].copy())
        if not is_last or self._pieces.numbering == "applio":
            self._number += 1
        return made

    def _quietest(self, first: int, last: int) -> int:
        part = self._levels[first - self._levels_base : last + 1 - self._levels_base]
        return first + int(np.argmin(part))

    def _forget(self) -> None:
        """Let go of samples and levels that nothing can ask for again."""
        frames = self._frames
        needed = self._seen if self._run is None else self._run
        if self._settled is not None:
            needed = self._seen - frames.max_silence - 1
        drop = min(max(0, needed - self._levels_base), len(self._levels))
        self._levels, self._levels_base = self._levels[drop:].copy(), self._levels_base + drop
        keep = self._seen * frames.hop - frames.half
        keep = min(keep, needed * frames.hop if self._settled is not None else self._next_start())
        drop = min(max(0, keep - self._base), len(self._samples))
        self._samples, self._base = self._samples[drop:].copy(), self._base + drop


def slice_blocks(
    blocks: Iterable[Float],
    sample_rate: int,
    pieces: PieceSettings | None = None,
    slicer: SlicerSettings | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_drop: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    """The training pieces of a recording that comes in `blocks` (float `[n]` at `sample_rate` Hz, any sizes).

    The pieces, their numbers and their bits do not depend on how the recording is divided. Memory holds one block and
    about a piece. Otherwise as `slicing.slice_recording`.
    """
    high_pass = HighPass(sample_rate)
    cutter = StreamSlicer(sample_rate, pieces, slicer)

    def cuts() -> Iterator[Cut]:
        for block in blocks:
            yield from cutter.push(high_pass.push(block))
        yield from cutter.finish()

    for cut in cuts():
        if should_stop is not None and should_stop():
            return
        levelled = level(cut.samples)
        if levelled is None:
            if on_drop is not None:
                on_drop(cut.number)
            continue
        yield Piece(cut.number, cut.start, cut.end, levelled.astype(np.float32), to_16k(levelled, sample_rate))
