"""Which networks can be asked for, and which one does a device train by default?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from libs.common.errors import InvalidInput
from libs.common.events import TrainingOptions


@dataclass(frozen=True)
class Preset:
    """What the gateway knows of a preset; the networks themselves are the trainer's.

    `usual_seconds`: of a usual run; `needs_hubert`: our own encoder's features do not fit it.
    """

    name: str
    needs_gpu: bool
    usual_seconds: float
    min_seconds: float = 10.0
    needs_hubert: bool = False


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("lite", needs_gpu=False, usual_seconds=280.0),
        Preset("rvc-tiny", needs_gpu=False, usual_seconds=60.0),
        *(
            Preset(f"rvc-v{version}-{rate}k", needs_gpu=True, usual_seconds=1200.0, needs_hubert=version == 1)
            for version in (2, 1)
            for rate in (32, 40, 48)
        ),
    )
}
FOR_CPU, FOR_GPU = "lite", "rvc-v2-40k"


def preset(name: str) -> Preset:
    """The preset called `name`; raises InvalidInput that lists the presets."""
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidInput(
            f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}",
            field="preset",
            actions=(f"Use one of: {', '.join(PRESETS)}.",),
            presets=list(PRESETS),
        ) from None


def check_options(name: str, options: TrainingOptions) -> None:
    """Raises InvalidInput for what may be asked of other presets, and not of this one."""
    if name != "lite":
        return
    if not options.f0:
        raise InvalidInput("a lite voice needs pitch; choose an RVC preset for one without", field="options.f0")
    if options.pretrained not in ("auto", "none"):
        raise InvalidInput("lite has no pretrained bases; choose an RVC preset", field="options.pretrained")


def default_preset(devices: Iterable[str]) -> str:
    """What the trainers can train: RVC when all that are alive have a GPU, otherwise `lite`, which runs everywhere."""
    known = list(devices)
    return FOR_GPU if known and all(device.startswith("cuda") for device in known) else FOR_CPU


def estimate_seconds(name: str, speech_seconds: float, train_seconds: float | None, limit: float) -> float:
    """A first guess at a whole training job's time: preparing runs at about 10 × real time, publishing takes 20 s."""
    return round(speech_seconds / 10 + min(train_seconds or preset(name).usual_seconds, limit) + 20, 1)
