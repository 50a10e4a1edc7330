"""Kind `pipeline pieces`: everything around the networks, from the slicer to whole conversions."""

from __future__ import annotations

from libs.voice.reference.contour import check_f0
from libs.voice.reference.conversion import check_conversions, check_loudness
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger
from libs.voice.reference.pieces import check_pieces
from libs.voice.reference.vectors import check_indices, check_retrieval


def check_pipeline(facts: Facts, ledger: Ledger, archive: str) -> None:
    """Each section that the JSON has; a section that is not known here stays unread and so fails."""
    ledger.documented(archive, facts["arrays"])
    with ledger.part("slicer and pieces"):
        check_pieces(facts, ledger, archive)
    if "f0" in facts:
        with ledger.part("pitch contour"):
            check_f0(facts["f0"], ledger, archive)
    if "index" in facts:
        with ledger.part("index files"):
            check_indices(facts["index"], ledger, archive)
    if "retrieval" in facts:
        with ledger.part("retrieval and protect"):
            check_retrieval(facts["retrieval"], ledger, archive)
    if "rms_mix" in facts:
        with ledger.part("loudness mix"):
            check_loudness(facts["rms_mix"], ledger, archive)
    if "e2e" in facts:
        check_conversions(facts["e2e"], ledger, archive)
