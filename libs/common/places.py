"""Where things lie on a server is nobody's business but its administrator's: problems name the setting instead."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from libs.common.settings import CommonSettings

_ROOTS = ("data_root", "uploads_dir", "models_root", "assets_root", "pretrained_root")
_FILES = ("hubert_path", "rmvpe_path", "xtts_path", "nats_credentials")
PROGRAM = Path(__file__).resolve().parents[2]


class Places:
    """The folders and files of one installation, and what they are called when others hear of them."""

    def __init__(self, settings: CommonSettings) -> None:
        named = {name.upper(): getattr(settings, name) for name in (*_FILES, *_ROOTS)}
        named |= {"objects": _folder_of(settings.storage_url), "program": PROGRAM, "tmp": Path(tempfile.gettempdir())}
        self._names: dict[str, str] = {}
        for name, path in named.items():
            if path is not None and len(path.parts) > 1:  # what lies directly under / is no secret by itself
                for spelling in (path.absolute(), path.resolve()):
                    self._names.setdefault(str(spelling), name)
        # The longest first: UPLOADS_DIR usually lies under DATA_ROOT.
        longest = sorted(self._names, key=len, reverse=True)
        # Only where a path begins: in containers the models lie at /models, which also ends /api/v1/models.
        self._found = re.compile(r"(?<![\w.}>-])(" + "|".join(re.escape(path) for path in longest) + r")(?![\w-])")

    def hidden(self, value: Any) -> Any:
        """`value` as JSON has it, with every such path in its texts replaced: `/srv/data/a.wav` → `DATA_ROOT/a.wav`."""
        match value:
            case str():
                return self._found.sub(lambda found: self._names[found[1]], value)
            case dict():
                return {key: self.hidden(item) for key, item in value.items()}
            case list() | tuple():
                return [self.hidden(item) for item in value]
        return value


def _folder_of(url: str) -> Path | None:
    return Path(url.removeprefix("file://")) if url.startswith("file:///") else None
