"""How does the gateway start? `python -m services.gateway`, after `python -m services.gateway.migrate`."""

from __future__ import annotations

from libs.common.service import begin, serve
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings

if __name__ == "__main__":
    settings = GatewaySettings.from_environment()
    begin(settings, "gateway")
    serve(create_app(settings), settings, "gateway", settings.port)
