"""A dataset of several people becomes one voice that was tried as each of them, and its card says who they are."""

from __future__ import annotations

import pytest

from libs.voice.tools import inspect_model
from tests.integration.voice_services.parts import prepared_tones
from tests.integration.voice_services.platform import Platform, evaluate, index, publish, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
LITE = {"preset": "lite", "total_steps": 3, "batch_size": 2}


@pytest.mark.parametrize("speakers", [1, 2])
async def test_a_voice_is_trained_tried_and_published_for_everybody_in_its_speech(
    here: Platform, speakers: int
) -> None:
    await here.started("trainer")
    prepared = prepared_tones(here.paths, rate=24_000, sources=6, speakers=speakers)

    trained = await here.send(train("job_1", prepared, **LITE), "trained", seconds=200)
    indexed = await here.send(index("job_1", prepared), "indexed", seconds=200)
    evaluated = await here.send(
        evaluate("job_1", prepared, trained.manifest, indexed.manifest), "evaluated", seconds=200
    )
    done = await here.send(
        publish("job_1", prepared, trained.manifest, indexed.manifest, evaluated.manifest), "published", seconds=200
    )

    card, version = done.card, here.paths.voice("anna").version("job_1")
    assert inspect_model(version.weights).speakers == inspect_model(version.native).speakers == speakers
    assert "speakers" not in evaluated.quality
    assert evaluated.quality["peak"] > 0
    if speakers == 1:
        assert "speakers" not in card["training"]
        assert "speakers" not in card["quality"]
    else:
        assert card["training"]["speakers"] == [0, 1]
        tried = card["quality"]["speakers"]
        assert tried.keys() == {"0", "1"}
        assert {tried[one]["level_db"] for one in tried} != {card["quality"]["level_db"]}
        assert card["quality"]["peak"] == max(tried[one]["peak"] for one in tried)
