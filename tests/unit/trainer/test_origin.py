"""What does a voice keep of the card that came with it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from libs.common.events import MakeVoice, MakingOptions
from libs.common.jobs import Step
from services.trainer.making import Materials
from services.trainer.model_handlers import _origin


def origin_of(card: Any) -> dict[str, Any]:
    options = MakingOptions(tool="import")
    command = MakeVoice(
        job_id="job_1", step=Step.make, experiment=".jobs", voice="anna", display_name="Anna", options=options
    )
    return _origin(command, Materials("import", Path("room")), {"form": "archive", "card": card})


def test_a_strangers_card_is_cut_to_the_plain_values_that_we_know() -> None:
    encoder = {"name": "hubert", "checksum": "a" * 64, "width": 768, "more": "x" * 10**6}
    card = {"name": "Anna", "sample_rate": 40_000, "content_encoder": encoder, "notes": ["x" * 10**6], "preset": ["?"]}

    kept = origin_of(card)["card"]

    assert kept == {
        "name": "Anna",
        "sample_rate": 40_000,
        "content_encoder": {"name": "hubert", "checksum": "a" * 64, "width": 768},
    }


def test_a_card_of_megabytes_is_kept_in_a_few_thousand_letters() -> None:
    long = {"name": "x" * 10**6, "rights": "y" * 10**6, "tool": "z" * 10**6, "job_id": "j" * 10**6}
    card = long | {"origin": long, "lineage": long, "content_encoder": long, "voice": 10**400}

    assert len(json.dumps(origin_of(card))) < 64 * 1024


def test_a_voice_that_is_passed_on_does_not_carry_the_cards_of_all_before_it() -> None:
    card: dict[str, Any] = {"name": "Anna"}
    sizes = []
    for _ in range(6):
        card = {"name": "Anna", "origin": origin_of(card)}
        sizes.append(len(json.dumps(card)))

    assert sizes[1:] == [sizes[1]] * 5
    assert card["origin"]["card"]["origin"] == {"tool": "import", "form": "archive"}
