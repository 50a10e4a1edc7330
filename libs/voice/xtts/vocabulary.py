"""Can a text be written in a network's tokens, and how many does it take? Read from `vocab.json`, without any library.

The file is that of the tokenizers package: byte pair encoding over words and runs of punctuation. XTTS writes a
space as [SPACE] and begins with the language, such as [en].
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from libs.common.errors import ModelFileRefused, NotFound

LARGEST_FILE = 20_000_000
STOP, UNKNOWN, SPACE = "[STOP]", "[UNK]", "[SPACE]"
_PIECES = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class Vocabulary:
    """`numbers` of the tokens, and how early each pair of pieces is `joined` (lower is earlier)."""

    numbers: dict[str, int]
    joined: dict[tuple[str, str], int]

    @cached_property
    def languages(self) -> frozenset[str]:
        """The languages that have a token, as `en` or `zh-cn`."""
        return frozenset(
            token[1:-1] for token in self.numbers if re.fullmatch(r"\[[a-z]{2}(-[a-z]{2})?\]", token) is not None
        )

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text that is cleaned already; [UNK] for what has none."""
        found: list[str] = []
        for place, word in enumerate(text.split(" ")):
            if place:
                found.append(SPACE)
            for piece in _PIECES.findall(word):
                found += self._pieces(piece)
        return found

    def count(self, text: str) -> int:
        """How many tokens a text takes, its language and its end included."""
        return len(self.tokens(text)) + 2

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that no token has, in the order of their first appearance."""
        return list(dict.fromkeys(letter for letter in text if not letter.isspace() and letter not in self.numbers))

    def _pieces(self, word: str) -> list[str]:
        parts = list(word)
        while len(parts) > 1:
            ranked = [(self.joined.get(pair), at) for at, pair in enumerate(itertools.pairwise(parts))]
            known = [(rank, at) for rank, at in ranked if rank is not None]
            if not known:
                break
            _, at = min(known)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [part if part in self.numbers else UNKNOWN for part in parts]


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a file. Raises NotFound, ModelFileRefused for what is not one of XTTS."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelFileRefused(f"{path.name} is larger than {LARGEST_FILE} bytes", field="vocab.json")
        content = json.loads(path.read_bytes())
        model = content["model"]
        numbers = {str(token): int(number) for token, number in model["vocab"].items()}
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        joined = {(str(left), str(right)): rank for rank, (left, right) in enumerate(pairs)}
        for added in content.get("added_tokens", ()):
            numbers.setdefault(str(added["content"]), int(added["id"]))
    except FileNotFoundError as error:
        raise NotFound(f"there is no {path.name} in the folder of XTTS_PATH", field="XTTS_PATH") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileRefused(f"{path.name} is no vocabulary of XTTS ({type(error).__name__})") from error
    lacking = [token for token in (STOP, UNKNOWN, SPACE) if token not in numbers]
    if lacking or (numbers[STOP], numbers[UNKNOWN]) != (0, 1):
        raise ModelFileRefused(
            f"{path.name} is no vocabulary of XTTS: "
            + (f"it lacks {', '.join(lacking)}" if lacking else "[STOP] and [UNK] must be 0 and 1")
        )
    return Vocabulary(numbers, joined)
