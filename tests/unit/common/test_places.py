"""Does what others hear of a failure say which setting, and never where on the server?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from libs.common.errors import Unavailable
from libs.common.health import WritableFolderCheck
from libs.common.places import PROGRAM, Places
from libs.common.service import create_service
from libs.common.settings import CommonSettings
from tests.conftest import TOKEN

SERVER = Path("/srv/voicewright")


@pytest.fixture
def settings() -> CommonSettings:
    return CommonSettings(
        service_token=TOKEN,
        data_root=SERVER / "data",
        models_root=SERVER / "data-of-models",
        assets_root=SERVER / "assets",
        hubert_path=Path("/opt/hubert/base.pt"),
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cannot read /srv/voicewright/data/uploads/anna/a.wav", "cannot read UPLOADS_DIR/anna/a.wav"),
        ("[Errno 2] No such file: '/srv/voicewright/data/a/.steps'", "[Errno 2] No such file: 'DATA_ROOT/a/.steps'"),
        ("cannot write in /srv/voicewright/data: full.", "cannot write in DATA_ROOT: full."),
        ("/srv/voicewright/data-of-models/v, /opt/hubert/base.pt", "MODELS_ROOT/v, HUBERT_PATH"),
        ("/srv/voicewright/assets/rmvpe/rmvpe.pt is not there", "RMVPE_PATH is not there"),
        ("/srv/voicewright/objects/voice-models", "objects/voice-models"),
        (f"File {PROGRAM}/libs/voice/lite.py, line 3", "File program/libs/voice/lite.py, line 3"),
        (
            "/srv/voicewright/database and /srv/voicewright/data2",
            "/srv/voicewright/database and /srv/voicewright/data2",
        ),
        ("POST /api/v1/training/jobs, see /readyz", "POST /api/v1/training/jobs, see /readyz"),
    ],
)
def test_a_path_of_the_installation_is_told_by_the_name_of_its_setting(
    settings: CommonSettings, said: str, told: str
) -> None:
    assert Places(settings).hidden(said) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "cannot read /models/anna/voice.json or file:///data/.objects",
            "cannot read MODELS_ROOT/anna/voice.json or file://objects",
        ),
        ("GET /api/v1/models: see /api/v1/models/{id}/data", "GET /api/v1/models: see /api/v1/models/{id}/data"),
        ("/assets/hubert/hubert_base.pt", "HUBERT_PATH"),
    ],
)
def test_an_address_of_the_api_is_no_path_of_a_container(said: str, told: str) -> None:
    settings = CommonSettings(service_token=TOKEN, environment="container", storage_url="file:///data/.objects")

    assert Places(settings).hidden(said) == told


def test_a_path_through_a_link_is_told_by_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "volume")
    settings = CommonSettings(service_token=TOKEN, data_root=tmp_path / "data")

    assert Places(settings).hidden(f"{(tmp_path / 'data').resolve()}/a.wav") == "DATA_ROOT/a.wav"


async def test_no_answer_of_a_service_shows_where_things_lie(settings: CommonSettings) -> None:
    router = APIRouter()

    @router.get("/voices/anna")
    async def voice() -> None:
        listed = [{"name": "a.wav", "problem": {"detail": f"{settings.data_root}/a.wav is damaged"}}]
        raise Unavailable(f"{settings.models_root}/anna/anna.pth cannot be read", rejected=listed)

    @asynccontextmanager
    async def nothing(_: FastAPI) -> AsyncIterator[None]:
        yield

    checks = [WritableFolderCheck(Path("/proc/voicewright"), "data")]
    settings.data_root = Path("/proc/voicewright")
    app = create_service(
        "test", settings, routers=[router], lifespan=nothing, checks=checks, title="Test", open_prefixes=("/voices/",)
    )

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        problem = await client.get("/voices/anna")
        readiness = await client.get("/readyz")

    assert problem.json()["detail"] == "MODELS_ROOT/anna/anna.pth cannot be read"
    assert problem.json()["rejected"][0]["problem"]["detail"] == "DATA_ROOT/a.wav is damaged"
    assert readiness.status_code == 503
    assert readiness.json()["checks"][0]["detail"].startswith("cannot write in DATA_ROOT: ")
