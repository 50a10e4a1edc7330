"""How are several recordings converted at once, so that each sounds as it does alone?

    recordings ─▶ a passage each ─▶ contents in one batch ─▶ clips of like length in one pass ─▶ each is told of its own
                                       masked                   masked, noise of each one's own seed

What fails together is done again one by one, so that only what fails alone has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from libs.voice.content import encode_batch
from libs.voice.content_batches import plan_batches
from libs.voice.conversion.contour import FRAMES_PER_SECOND
from libs.voice.conversion.converter import Converter
from libs.voice.conversion.passage import Passage
from libs.voice.conversion.settings import Conversion, check_output_rate
from libs.voice.conversion.source import ArraySource
from libs.voice.synthesizer import Clip

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Given = TypeVar("Given")
Made = TypeVar("Made")

Outcome = tuple[Float32, int] | Exception
"""A wave float32 `[T]` and its rate in Hz, or what `Converter.convert` would have raised for this recording."""


@dataclass(frozen=True)
class Order:
    """One recording and what is wanted of it: the arguments of `Converter.convert`."""

    wave: NDArray[np.floating]
    sample_rate: int
    conversion: Conversion
    output_rate: int | None = None
    should_stop: Callable[[], bool] | None = None


def convert_together(
    converter: Converter,
    orders: Sequence[Order],
    tell: Callable[[int, Outcome], None],
    *,
    most_seconds: float,
    on_retry: Callable[[Exception], None] | None = None,
) -> None:
    """Converts `orders`, chunk by chunk side by side; `tell(place, outcome)` is called once for each, when it is over.

    Each sounds as `Converter.convert` makes it alone, to the rounding of float32: what is padding is masked, and chance
    comes from each order's own seed. One pass of the synthesizer takes clips of like length, context and padding
    included at most `most_seconds` unless one alone is longer. When a pass fails, `on_retry` hears of it and its
    members are done one by one, from the same state of chance; an order that fails alone is told its exception.
    """
    with ThreadPoolExecutor(1) as pool:
        batch = _Batch(converter, tell, round(most_seconds * FRAMES_PER_SECOND), on_retry)
        for place, order in enumerate(orders):
            batch.begin(place, order, pool)
        while batch.courses:
            batch.advance()


@dataclass
class _Course:
    """An order that is being carried out, a chunk at a time."""

    order: Order
    source: Float64
    passage: Passage
    parts: list[Float32] = field(default_factory=list)


class _Batch:
    """Orders under way, by their places; one that is over or has failed is told and leaves."""

    def __init__(
        self,
        converter: Converter,
        tell: Callable[[int, Outcome], None],
        most_frames: int,
        on_retry: Callable[[Exception], None] | None,
    ) -> None:
        self.courses: dict[int, _Course] = {}
        self._converter = converter
        self._tell = tell
        self._most_frames = most_frames
        self._on_retry = on_retry

    def begin(self, place: int, order: Order, pool: Executor) -> None:
        with self._alone(place):
            check_output_rate(order.output_rate)
            source = self._converter.prepare(order.wave, order.sample_rate, order.conversion)
            passage = Passage(self._converter, ArraySource(source), order.conversion, order.should_stop, pool)
            self.courses[place] = _Course(order, source, passage)

    def advance(self) -> None:
        """One chunk further with everybody."""
        audios: dict[int, Float32] = {}
        for place, course in list(self.courses.items()):
            with self._alone(place):
                for audio in course.passage.audios():  # one chunk at a time, none when it is silence
                    audios[place] = audio
        contents = self._together(partial(encode_batch, self._converter.encoder), audios)
        clips: dict[int, Clip] = {}
        for place, course in list(self.courses.items()):
            with self._alone(place):
                for clip in course.passage.clips([contents[place]] if place in contents else []):
                    clips[place] = clip
        for place in self.courses.keys() - clips.keys():
            self._take(place, [])
        places = list(clips)
        # The shortest first: whoever needs little does not wait for who needs much.
        for group in reversed(plan_batches([len(clip.content) for clip in clips.values()], self._most_frames)):
            for place, wave in self._render({places[i]: clips[places[i]] for i in sorted(group)}).items():
                self._take(place, [wave])

    def _take(self, place: int, waves: list[Float32]) -> None:
        course, made = self.courses[place], None
        with self._alone(place):
            course.parts += [part for part, _ in course.passage.parts(waves)]
            if course.passage.is_over:
                order = course.order
                made = self._converter.finish(course.source, course.parts, order.conversion, order.output_rate)
        if made is not None:
            del self.courses[place]
            self._tell(place, made)

    def _render(self, clips: dict[int, Clip]) -> dict[int, Float32]:
        states = {place: clip.generator.get_state() for place, clip in clips.items()}

        def render(places: list[int]) -> list[Float32]:
            for place in places:  # a pass that failed may have drawn noise already
                clips[place].generator.set_state(states[place])
            return self._converter.render([clips[place] for place in places])

        return self._together(render, {place: place for place in clips})

    def _together(self, call: Callable[[list[Given]], list[Made]], given: dict[int, Given]) -> dict[int, Made]:
        """`call` of all at once; if that fails, of each alone, and who fails then too is lost."""
        if len(given) > 1:
            try:
                return dict(zip(given, call(list(given.values())), strict=True))
            except Exception as error:
                if self._on_retry is not None:
                    self._on_retry(error)
        made: dict[int, Made] = {}
        for place, one in given.items():
            with self._alone(place):
                made[place] = call([one])[0]
        return made

    @contextmanager
    def _alone(self, place: int) -> Iterator[None]:
        """What is raised inside is this order's end and nobody else's."""
        try:
            yield
        except Exception as error:
            self.courses.pop(place, None)
            self._tell(place, error)
