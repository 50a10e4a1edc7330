"""How does the trainer start? `python -m services.trainer`."""

from __future__ import annotations

from libs.common import gpu
from libs.common.processes import share_cores
from libs.common.service import begin, serve
from services.trainer.app import create_app
from services.trainer.settings import TrainerSettings

if __name__ == "__main__":
    share_cores()
    settings = TrainerSettings.from_environment()
    begin(settings, "trainer")
    gpu.watch()
    serve(create_app(settings), settings, "trainer", settings.port)
