"""How does ingest start? `python -m services.ingest`."""

from __future__ import annotations

from libs.common.service import begin, serve
from services.ingest.app import create_app
from services.ingest.settings import IngestSettings

if __name__ == "__main__":
    settings = IngestSettings.from_environment()
    begin(settings, "ingest")
    serve(create_app(settings), settings, "ingest", settings.port)
