"""How does the preprocessor start? `python -m services.preprocessor`."""

from __future__ import annotations

from libs.common import gpu
from libs.common.processes import share_cores
from libs.common.service import begin, serve
from services.preprocessor.app import create_app
from services.preprocessor.settings import PreprocessorSettings

if __name__ == "__main__":
    share_cores()
    settings = PreprocessorSettings.from_environment()
    begin(settings, "preprocessor")
    gpu.watch()
    serve(create_app(settings), settings, "preprocessor", settings.port)
