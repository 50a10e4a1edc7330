"""Do a voice, its content encoder and its index belong together?"""

from __future__ import annotations

from libs.common.errors import InvalidInput
from libs.voice.content import ContentEncoder
from libs.voice.retrieval import RetrievalIndex
from libs.voice.synthesizer import Synthesizer


def check_widths(synthesizer: Synthesizer, encoder: ContentEncoder, index: RetrievalIndex | None) -> None:
    """Raises InvalidInput, which names the part, unless all three know content frames of one width (256 or 768)."""
    wanted = synthesizer.content_width
    if encoder.width != wanted:
        raise InvalidInput(
            f"This voice reads content of {wanted} values and `{encoder.name}` gives {encoder.width}; "
            "v1 voices need a v1 encoder, v2 voices a v2 encoder.",
            field="content_encoder",
        )
    if index is not None and index.width != wanted:
        raise InvalidInput(
            f"The index holds vectors of {index.width} values and this voice needs {wanted}.", field="index"
        )
