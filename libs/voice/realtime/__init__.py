"""How is speech converted while it is being spoken? Block by block, with a stretch of the past for context."""

from libs.voice.realtime.converter import RealtimeConverter
from libs.voice.realtime.settings import RealtimeSettings

__all__ = ["RealtimeConverter", "RealtimeSettings"]
