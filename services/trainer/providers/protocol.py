"""What must a provider of voices be able to do? A new one is one module that does this, and its entry in
`libs/common/providers.py`, where what people should know beforehand stands: what it needs, takes and costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from libs.common.events import CheckSpeech, PublishVoice, TrainVoice
from libs.common.paths import VoiceVersion
from libs.common.work import Done, Work


@dataclass(frozen=True)
class Readiness:
    """Whether a provider can be used on this node. `missing`: what it lacks; `how`: how to get it."""

    missing: tuple[str, ...] = ()
    how: str = ""

    @property
    def is_available(self) -> bool:
        return not self.missing

    def as_dict(self) -> dict[str, Any]:
        """As the trainer announces it."""
        return {"available": self.is_available, "missing": list(self.missing), "how": self.how}


class Provider(Protocol):
    """Makes voices of one kind. Every call may be repeated by another worker, as all work may (docs/decisions/0002)."""

    @property
    def name(self) -> str:
        """As in the catalogue."""
        ...

    async def readiness(self) -> Readiness:
        """What stands in the way on this node, looked at anew; never raises, and is done within seconds."""
        ...

    async def train(self, work: Work[TrainVoice]) -> Done:
        """Learns the voice, reporting progress, and ends as `work` wishes: Cancelled or Preempted after a checkpoint.

        A repeated command goes on from the furthest earlier attempt. Ends in `VoiceTrained`.
        """
        ...

    async def package(self, work: Work[PublishVoice], version: VoiceVersion) -> dict[str, Any]:
        """Puts the whole version into its folder, each file whole and on disk; returns the card that lies there."""
        ...

    async def try_out(self, work: Work[PublishVoice], version: VoiceVersion) -> None:
        """Makes a test sound with the packaged version. Raises ModelValidationFailed when there is none to hear."""
        ...


@runtime_checkable
class SpeechProvider(Provider, Protocol):
    """Makes voices that speak text. RVC's voices do not: their datasets are checked by the preprocessor."""

    async def check(self, work: Work[CheckSpeech]) -> Done:
        """Looks at every clip and its text before anything is trained. Ends in `SpeechChecked`.

        Raises InvalidInput (DatasetEmpty, DatasetTooShort …) with a reason for each clip that cannot be used.
        """
        ...
