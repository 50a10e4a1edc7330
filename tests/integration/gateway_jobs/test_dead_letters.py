"""Can people look at what nobody could work on, and say that they have?"""

from __future__ import annotations

import json

import pytest

from libs.common.bus import Bus
from libs.common.errors import PoisonCommand
from libs.common.events import ValidateDataset
from libs.common.jobs import Lane, Step
from services.gateway import dead_letters
from services.gateway.settings import GatewaySettings


async def test_dead_letters_are_printed_with_their_reason_and_stay_until_they_are_forgotten(
    settings: GatewaySettings, bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ValidateDataset(job_id="job_1", step=Step.validate, experiment="anna", dataset="anna", inputs=())
    await bus.send_command(command, Lane.high)
    ingest = Bus(bus._nc, settings, "ingest")
    delivery = await ingest.commands(Lane.high).take(settings.ack_wait)
    assert delivery is not None
    await ingest.dead_letter(delivery, PoisonCommand("2 deliveries\nended without progress").problem())

    assert await dead_letters.show(settings, forget=False) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    letter = json.loads(line)
    assert (letter["subject"], letter["code"]) == ("cmd.ingest.validate.high", PoisonCommand.code)
    assert letter["detail"] == "2 deliveries ended without progress"
    assert json.loads(letter["content"])["data"]["job_id"] == "job_1"

    assert await dead_letters.show(settings, forget=True) == 1
    assert await dead_letters.show(settings, forget=False) == 0


def test_an_unknown_word_is_no_reason_to_forget_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dead_letters", "--forgetful"])

    with pytest.raises(SystemExit, match="use: python -m"):
        dead_letters.main()
