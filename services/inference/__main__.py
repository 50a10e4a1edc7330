"""How does inference start? `python -m services.inference`."""

from __future__ import annotations

from libs.common import gpu
from libs.common.processes import share_cores
from libs.common.service import begin, serve
from services.inference.settings import InferenceSettings

if __name__ == "__main__":
    share_cores()
    settings = InferenceSettings.from_environment()
    begin(settings, "inference")
    gpu.watch()
    from services.inference.app import create_app  # imports torch, which looks at the environment once

    serve(create_app(settings), settings, "inference", settings.port)
