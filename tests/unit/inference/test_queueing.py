"""What Prometheus, and with it a scaler, learns of the requests that somebody waits for."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from libs.common.errors import Busy
from services.inference.queueing import Room


def in_hand() -> float:
    return REGISTRY.get_sample_value("voicewright_inference_in_hand_requests") or 0.0


def test_a_request_counts_as_in_hand_while_it_works_or_waits_and_one_that_is_sent_away_never_does() -> None:
    room = Room(at_once=1, waiting=1)
    before = in_hand()

    with room.admitted(), room.admitted():
        with pytest.raises(Busy), room.admitted():
            pass
        inside = in_hand() - before

    assert inside == 2
    assert in_hand() == before
