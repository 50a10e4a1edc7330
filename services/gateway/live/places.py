"""Who may open one more live conversion?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from libs.common.errors import Busy


class LiveSessions:
    """Who has how many streams open at this gateway."""

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()

    def of(self, user_id: str) -> int:
        """The streams of one account."""
        return self._now[user_id]

    @contextmanager
    def place(self, user_id: str, most: int) -> Iterator[None]:
        """A place for one more; raises Busy when the account has all of its own."""
        if self._now[user_id] >= most:
            raise Busy(f"you have {most} live conversions, which is the limit", retry_after=5.0)
        self._now[user_id] += 1
        try:
            yield
        finally:
            self._now[user_id] -= 1
            if not self._now[user_id]:
                del self._now[user_id]
