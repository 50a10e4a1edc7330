"""How does the inference start? `python -m services.inference`."""

from __future__ import annotations

from libs.common.service import serve
from services.inference.app import create_app
from services.inference.settings import InferenceSettings

if __name__ == "__main__":
    settings = InferenceSettings()
    serve(create_app(settings), settings, "inference", settings.port)
