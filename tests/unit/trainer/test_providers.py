"""What does a trainer say about providers that cannot be used on its node?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from libs.common.errors import InvalidInput, ProviderUnavailable
from libs.common.paths import Paths
from libs.common.providers import PROVIDERS
from services.trainer.providers.choosing import Providers
from services.trainer.providers.google import GoogleProvider
from services.trainer.providers.openai import OpenAIProvider
from services.trainer.providers.protocol import Readiness, SpeechProvider
from services.trainer.providers.rvc import RvcProvider
from services.trainer.providers.xtts import XttsProvider
from services.trainer.settings import TrainerSettings

FILES = ("config.json", "model.pth", "vocab.json", "dvae.pth", "mel_stats.pth")


def settings_at(folder: Path, **changed: object) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {"service_token": "x" * 32, "data_root": folder / "data", "xtts_path": folder / "xtts"} | changed
    )


def providers(settings: TrainerSettings) -> Providers:
    paths = Paths(settings)
    speaking = [kind(settings, paths) for kind in (XttsProvider, GoogleProvider, OpenAIProvider)]
    return Providers(RvcProvider(settings, paths), speaking)


async def test_what_xtts_lacks_is_said_with_the_way_to_get_it(tmp_path: Path) -> None:
    found = await providers(settings_at(tmp_path)).look()

    assert found["rvc"] == Readiness()
    lacking = found["xtts"]
    assert any(", ".join(FILES) in said for said in lacking.missing)
    assert any("XTTS_LICENCE_ACCEPTED=CPML-1.0" in said for said in lacking.missing)
    assert "scripts/fetch-assets xtts" in lacking.how
    assert str(tmp_path) not in f"{lacking.missing}{lacking.how}"
    assert "GOOGLE_TTS_API_KEY" in found["google"].how
    assert "OPENAI_API_KEY" in found["openai"].how


async def test_the_licence_is_accepted_by_its_name_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "xtts").mkdir()
    for name in FILES:
        (tmp_path / "xtts" / name).touch()

    async def of(accepted: str) -> tuple[str, ...]:
        settings = settings_at(tmp_path, xtts_licence_accepted=accepted)
        missing = (await XttsProvider(settings, Paths(settings)).readiness()).missing
        return tuple(said for said in missing if "package" not in said)

    assert await of("CPML-1.0") == ()
    assert "licence" in (await of("yes"))[0]
    assert "licence" in (await of(""))[0]


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/false"])
async def test_an_interpreter_that_does_not_start_is_named_as_what_is_missing(tmp_path: Path, python: str) -> None:
    settings = settings_at(tmp_path, xtts_python=python)

    missing = (await XttsProvider(settings, Paths(settings)).readiness()).missing

    assert "XTTS_PYTHON does not start" in missing[0]


async def test_another_interpreter_is_asked_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)  # the same one by another name, without the environment's packages
    settings = settings_at(tmp_path, xtts_python=tmp_path / "python")

    missing = (await XttsProvider(settings, Paths(settings)).readiness()).missing

    assert missing[0] == "the package coqui-tts"


async def test_a_job_of_a_provider_that_is_not_there_ends_with_what_is_missing(tmp_path: Path) -> None:
    chosen = providers(settings_at(tmp_path))

    with pytest.raises(ProviderUnavailable) as caught:
        await chosen.speaking("xtts-v2")

    assert "licence" in caught.value.detail
    assert caught.value.problem()["retryable"] is False
    assert (await chosen.usable("lite")).name == "rvc"
    with pytest.raises(InvalidInput):
        await chosen.speaking("lite")


async def test_readiness_lists_all_and_announcements_carry_the_same(tmp_path: Path) -> None:
    chosen = providers(settings_at(tmp_path, openai_api_key="sk-x"))

    said = await chosen()
    announced = chosen.facts()["providers"]

    assert said.startswith("rvc; without xtts: ")
    assert said.endswith("; openai")
    assert announced.keys() == PROVIDERS.keys()
    assert [state["available"] for state in announced.values()] == [True, False, False, True]


def test_every_provider_that_speaks_can_check_a_dataset(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    paths = Paths(settings)

    made = {kind.name: kind(settings, paths) for kind in (XttsProvider, GoogleProvider, OpenAIProvider)}

    assert set(made) == {name for name, provider in PROVIDERS.items() if provider.speaks}
    assert all(isinstance(each, SpeechProvider) for each in made.values())
    assert not isinstance(RvcProvider(settings, paths), SpeechProvider)
