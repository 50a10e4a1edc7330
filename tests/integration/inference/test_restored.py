"""Does a voice still speak after its platform was lost and restored?"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

from libs.common.paths import Paths
from services.gateway.backup.making import make
from services.gateway.backup.restoring import restore
from services.gateway.migrate import migrate
from services.gateway.settings import GatewaySettings
from tests.comparing import SAME, apart, samples
from tests.conftest import TOKEN
from tests.integration.inference.conftest import Serve
from tests.integration.inference.voice_factory import Voices, stage


def gateway(folder: Path) -> GatewaySettings:
    return GatewaySettings(
        service_token=TOKEN,
        data_root=folder / "data",
        models_root=folder / "models",
        database_url=f"sqlite+aiosqlite:///{folder}/gateway.db",
        gateway_url="http://127.0.0.1:1",
    )


async def test_a_restored_voice_says_the_same(
    serve: Serve, voices: Voices, speech: str, paths: Paths, tmp_path: Path
) -> None:
    voices.publish("anna", "job_1", seed=1)
    voices.publish("anna", "job_2", seed=2)
    here, there = gateway(tmp_path), gateway(tmp_path / "there")
    await migrate(here)
    kept = io.BytesIO()
    await make(here, kept)
    kept.seek(0)

    await restore(there, kept)

    recording = await asyncio.to_thread(paths.staged_upload(speech).original.read_bytes)
    (tmp_path / "same").write_bytes(recording)
    stage(Paths(there), "upl_again", tmp_path / "same")
    async with (
        serve() as before,
        serve(data_root=there.data_root, uploads_dir=None, models_root=there.models_root) as after,
    ):
        said = await before.post("/conversions", json={"upload_id": speech, "voice": "anna", "seed": 5})
        again = await after.post("/conversions", json={"upload_id": "upl_again", "voice": "anna", "seed": 5})

    assert (said.status_code, again.status_code) == (200, 200)
    assert again.headers["X-Voice-Version"] == "job_2"
    assert apart(samples(said.content), samples(again.content)) <= SAME
