"""Which networks can be asked for, and which one does a device train by default?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from libs.common.errors import InvalidInput
from libs.common.events import TrainingOptions
from libs.common.providers import PROVIDERS, SPEECH_PRESETS, provider_of
from libs.common.speakers import SPEAKERS

USUAL_EPOCHS = 100


@dataclass(frozen=True)
class Preset:
    """What the gateway knows of a preset; the networks themselves are the trainer's.

    `usual_seconds`: of a usual run; `needs_hubert`: our own encoder's features do not fit it; `speakers`: for how many
    numbers from 0 on a network that converts has places.
    """

    name: str
    needs_gpu: bool
    usual_seconds: float
    min_seconds: float = 10.0
    needs_hubert: bool = False
    speakers: int = SPEAKERS


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("lite", needs_gpu=False, usual_seconds=280.0),
        Preset("rvc-tiny", needs_gpu=False, usual_seconds=60.0, speakers=4),
        *(
            Preset(f"rvc-v{version}-{rate}k", needs_gpu=True, usual_seconds=1200.0, needs_hubert=version == 1)
            for version in (2, 1)
            for rate in (32, 40, 48)
        ),
        *(
            Preset(name, needs_gpu=False, usual_seconds=60 * each.minutes[1], min_seconds=each.needs.seconds[0])
            for each in PROVIDERS.values()
            if each.speaks
            for name in each.presets
        ),
    )
}
FOR_CPU, FOR_GPU = "lite", "rvc-v2-40k"
SPEECH_OPTIONS = {"preset", "language", "consent_recording"}
LEARNING_OPTIONS = {
    "transcribe",
    "epochs",
    "batch_size",
    "accumulation",
    "learning_rate",
    "weight_decay",
    "validation_split",
    "early_stopping_patience",
    "total_steps",
    "max_training_seconds",
    "best_on_timeout",
    "seed",
}


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
    if name in SPEECH_PRESETS:
        _check_speech_options(name, options)
        return
    for field in ("language", "consent_recording", "transcribe"):
        if getattr(options, field) not in (None, False):
            raise InvalidInput(f"{name} learns from sound alone and takes no {field}", field=f"options.{field}")
    if name != "lite":
        if options.adversarial_steps:
            raise InvalidInput(
                f"{name} learns against judges in every step; leave it out, it is an option of lite",
                field="options.adversarial_steps",
            )
        return
    if not options.f0:
        raise InvalidInput("a lite voice needs pitch; choose an RVC preset for one without", field="options.f0")
    if options.pretrained not in ("auto", "none"):
        raise InvalidInput(
            "lite has no other bases than auto and none; choose an RVC preset", field="options.pretrained"
        )


def _check_speech_options(name: str, options: TrainingOptions) -> None:
    """A voice that speaks takes a language; what only other networks have is refused, not ignored."""
    provider = provider_of(name)
    taken = SPEECH_OPTIONS | (LEARNING_OPTIONS if provider.is_local else set())
    asked = options.model_dump(exclude_defaults=True).keys() - taken
    if asked:
        field = sorted(asked)[0]
        raise InvalidInput(f"{name} has no option {field}", field=f"options.{field}", actions=("Leave it out.",))
    if options.language is None:
        raise InvalidInput(
            f"say which language is spoken; {provider.name} knows {', '.join(provider.languages)}",
            field="options.language",
        )
    if options.language not in provider.languages:
        raise InvalidInput(
            f"{provider.name} does not speak {options.language!r}; it knows {', '.join(provider.languages)}",
            field="options.language",
        )
    if provider.needs.consent_recording and options.consent_recording is None:
        raise InvalidInput(
            f"{provider.name} makes a voice only with its speaker's recorded consent",
            field="options.consent_recording",
            actions=(
                "Record the speaker reading the provider's consent statement, upload it to the dataset, and name it.",
            ),
        )


def default_preset(devices: Iterable[str]) -> str:
    """What the trainers can train: RVC when all that are alive have a GPU, otherwise `lite`, which runs everywhere."""
    known = list(devices)
    return FOR_GPU if known and all(device.startswith("cuda") for device in known) else FOR_CPU


def estimate_seconds(
    name: str, speech_seconds: float, train_seconds: float | None, limit: float, epochs: int | None = None
) -> float:
    """A first guess at a whole training job's time: preparing runs at about 10 × real time, publishing takes 20 s.

    A usual run makes 100 epochs; fewer take as much less. Larger batches make as many passes in about the same time.
    """
    usual = preset(name).usual_seconds * (epochs or USUAL_EPOCHS) / USUAL_EPOCHS
    return round(speech_seconds / 10 + min(train_seconds or usual, limit) + 20, 1)
