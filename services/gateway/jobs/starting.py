"""May this job begin, and with what? Everything that can be refused is refused here, before anything is queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import DatasetEmpty, DatasetNotPrepared, DatasetTooShort, InvalidInput, NotFound
from libs.common.events import InputFile, TrainingOptions
from libs.common.jobs import JobKind
from libs.common.pitch_requests import check_method
from libs.common.providers import Provider, provider_named, provider_of
from services.gateway import workers
from services.gateway.accounts.current import Caller
from services.gateway.datasets import catalogue, speakers
from services.gateway.datasets.tables import Dataset
from services.gateway.jobs import budget, lifecycle, presets, reading, speech
from services.gateway.jobs.schemas import PreprocessRequest, TrainingRequest
from services.gateway.jobs.tables import Job
from services.gateway.providers.availability import check_available
from services.gateway.providers.estimating import Estimate, Workload, estimate
from services.gateway.voices import registry


async def find_dataset(session: AsyncSession, caller: Caller, key: str | None, name: str | None = None) -> Dataset:
    """The dataset with id or slug `key`, or the caller's own called `name`; raises NotFound for a stranger's."""
    if key:
        return await catalogue.find(session, caller, key)
    if not name:
        raise InvalidInput(
            "name the dataset: dataset_id, or exp_name", field="dataset_id", actions=("Send dataset_id or exp_name.",)
        )
    if "\0" in name:
        raise NotFound("there is no dataset of that name", field="dataset_id")
    # A slug that was taken got a suffix: its owner still knows the dataset by the name they gave.
    return await catalogue.find_by_name(session, caller, name) or await catalogue.find(session, caller, name)


@dataclass(frozen=True)
class Recordings:
    """What a dataset holds: its recordings by content, and how much there is of each speaker."""

    inputs: tuple[InputFile, ...]
    shares: tuple[speakers.Share, ...]

    @property
    def seconds(self) -> float:
        """Of sound, all together."""
        return sum(share.seconds for share in self.shares)


async def recordings_of(session: AsyncSession, dataset: Dataset) -> Recordings:
    """What the dataset holds now."""
    samples = await catalogue.ready_samples(session, dataset.id)
    return Recordings(
        inputs=tuple(
            InputFile(sample_id=s.id, sha256=s.sha256, extension=s.extension, speaker=s.speaker_id) for s in samples
        ),
        shares=(await speakers.in_datasets(session, [dataset.id]))[dataset.id],
    )


def check_speakers(preset: presets.Preset, dataset: Dataset, shares: Sequence[speakers.Share]) -> None:
    """Raises InvalidInput when one voice of this preset cannot be all of the dataset's speakers."""
    provider = provider_of(preset.name)
    if len(shares) > provider.speakers:
        numbers = ", ".join(str(share.speaker_id) for share in shares)
        raise InvalidInput(
            f"{provider.name} makes a voice of one speaker, and the recordings of {dataset.slug!r} have "
            f"{len(shares)}: speaker_id {numbers}",
            field="speaker_id",
            limit=provider.speakers,
            actions=(
                "Upload the recordings of each speaker to a dataset of their own.",
                "If they are of one person, give all the same speaker_id: PATCH /api/v1/samples/{id}.",
                "Or train lite or an RVC preset: one voice of theirs learns several speakers.",
            ),
            speakers=[share.speaker_id for share in shares],
        )
    if not provider.speaks and shares and shares[-1].speaker_id >= preset.speakers:
        raise InvalidInput(
            f"{preset.name} has places for speaker_id 0 to {preset.speakers - 1}, and a recording of "
            f"{dataset.slug!r} has {shares[-1].speaker_id}",
            field="speaker_id",
            limit=preset.speakers - 1,
            actions=("Give lower numbers: PATCH /api/v1/samples/{id}, or upload the same recordings again with them.",),
            speakers=[share.speaker_id for share in shares if share.speaker_id >= preset.speakers],
        )


def check_speech(
    dataset: Dataset,
    inputs: Sequence[InputFile],
    seconds: float,
    needed: float,
    shares: Sequence[speakers.Share] = (),
) -> None:
    """Raises DatasetEmpty or DatasetTooShort, with the seconds that are there and that are needed.

    Of several speakers each needs as much as a voice of their own, because that is what each becomes.
    """
    if not inputs:
        raise DatasetEmpty(
            f"the dataset {dataset.slug!r} has no recording; {needed:g} s of speech are needed",
            given_seconds=0.0,
            needed_seconds=needed,
        )
    if seconds < needed:
        raise DatasetTooShort(
            f"the dataset {dataset.slug!r} holds {seconds:.1f} s of sound; {needed:g} s are needed",
            given_seconds=round(seconds, 3),
            needed_seconds=needed,
        )
    short = [share for share in shares if share.seconds < needed]
    if short and len(shares) > 1:
        named = ", ".join(f"speaker_id {share.speaker_id} has {share.seconds:.1f} s" for share in short)
        raise DatasetTooShort(
            f"in the dataset {dataset.slug!r} {named} of sound; {needed:g} s are needed of each speaker",
            field="speaker_id",
            given_seconds=round(short[0].seconds, 3),
            needed_seconds=needed,
            speakers=[share.speaker_id for share in short],
            actions=(
                "Upload more recordings of that speaker.",
                "Or delete theirs, or give them another speaker_id: DELETE or PATCH /api/v1/samples/{id}.",
            ),
        )


def not_prepared(dataset: Dataset, missing: Sequence[str]) -> DatasetNotPrepared:
    """Folders of a dataset are missing, by name."""
    return DatasetNotPrepared(f"the dataset {dataset.slug!r} lacks {', '.join(missing)}", missing=list(missing))


def outdated(dataset: Dataset) -> DatasetNotPrepared:
    """The folders are whole, and of other recordings or speakers than the dataset has now."""
    return DatasetNotPrepared(
        f"the recordings of {dataset.slug!r}, or whose they are, have changed since it was prepared", missing=[]
    )


@dataclass(frozen=True)
class Plan:
    """A training that may begin, or why it may not: everything is looked at, and nothing is written."""

    provider: Provider
    preset: presets.Preset
    dataset: Dataset
    inputs: Sequence[InputFile]
    options: TrainingOptions
    estimate: Estimate


async def plan_training(
    session: AsyncSession, request: TrainingRequest, dataset: Dataset, alive: Sequence[workers.Announced], price: float
) -> Plan:
    """What a request would start. `price` is that of an hour of training, `alive` the workers as they announce it.

    Raises InvalidInput (a provider, preset, option or pitch method that is unknown, or that none of them can use),
    ProviderUnavailable, DatasetEmpty, DatasetTooShort.
    """
    preset = _usable_preset(_asked_preset(request), alive)
    provider = provider_of(preset.name)
    options = TrainingOptions.model_validate(request.options.model_dump(exclude={"preset"}) | {"preset": preset.name})
    presets.check_options(preset.name, options)
    check_available(provider, alive)
    held = await recordings_of(session, dataset)
    check_speakers(preset, dataset, held.shares)
    inputs: Sequence[InputFile] = held.inputs
    if provider.speaks:
        inputs = clips = await speech.clips_of(session, dataset)
        learnt = speech.learnt_from(clips, options)
        seconds = sum(clip.seconds for clip in learnt)
        check_speech(dataset, learnt, seconds, preset.min_seconds)
        speech.check_transcripts(provider, learnt, by_machine=options.transcribe)
    else:
        _check_pitch(request.options.f0_method, alive, "options.f0_method")
        check_speech(dataset, inputs, held.seconds, preset.min_seconds, held.shares)
    expected = await estimate_training(session, dataset, options, alive, price)
    return Plan(provider, preset, dataset, inputs, options, expected)


async def estimate_training(
    session: AsyncSession, dataset: Dataset, options: TrainingOptions, alive: Sequence[workers.Announced], price: float
) -> Estimate:
    """What such a training of the dataset would take and cost."""
    samples = await catalogue.ready_samples(session, dataset.id)
    devices = workers.devices(alive)
    written = [sample.transcript for sample in samples if sample.transcript]
    work = Workload(
        preset=options.preset,
        speech_seconds=float(sum(sample.duration_seconds for sample in samples)),
        recordings=len(samples),
        size_bytes=sum(sample.size_bytes for sample in samples),
        characters=sum(map(len, written)) if written and len(written) == len(samples) else None,
        epochs=options.epochs,
        batch_size=options.batch_size,
        train_seconds=options.train_seconds,
        limit_seconds=options.max_training_seconds,
        device="cuda" if devices and all(device.startswith("cuda") for device in devices) else "cpu",
    )
    return estimate(work, price)


async def start_training(
    session: AsyncSession,
    caller: Caller,
    request: TrainingRequest,
    *,
    job_id: str,
    alive: Sequence[workers.Announced],
    price: float,
    limits: budget.Limits = budget.NO_LIMITS,
) -> Job:
    """Opens a training job in the caller's transaction.

    Raises what `plan_training` raises, NotFound, BudgetExceeded, Conflict (the dataset is in use).
    """
    if (repeated := await reading.opened_before(session, caller, job_id)) is not None:
        return repeated
    plan = await plan_training(session, request, await _held_dataset(session, caller, request), alive, price)
    await budget.check(session, plan.estimate.cost, limits)
    dataset = plan.dataset
    voice = await registry.reserve(
        session, owner_id=caller.id, name=request.name or dataset.name, dataset_id=dataset.id, preset=plan.preset.name
    )
    order = lifecycle.Order(
        id=job_id,
        owner_id=caller.id,
        kind=JobKind.training,
        name=voice.name,
        dataset_id=dataset.id,
        dataset=dataset.slug,
        inputs=plan.inputs,
        options=plan.options,
        preset=plan.preset.name,
        voice=voice.slug,
        priority=request.priority,
        estimated_seconds=plan.estimate.seconds,
        estimated_cost=plan.estimate.cost,
    )
    job = await lifecycle.open_job(session, order)
    job.model_id = voice.id
    return job


async def start_preprocessing(
    session: AsyncSession,
    caller: Caller,
    request: PreprocessRequest,
    *,
    job_id: str,
    alive: Sequence[workers.Announced],
) -> Job:
    """Opens a preprocessing job in the caller's transaction; raises as `start_training` does."""
    if (repeated := await reading.opened_before(session, caller, job_id)) is not None:
        return repeated
    preset = _usable_preset(request.preset, alive)
    if provider_of(preset.name).speaks:
        raise InvalidInput(
            f"nothing is prepared for {preset.name}: its training looks at the clips itself",
            field="preset",
            actions=("Start the training, or ask for an estimate.",),
        )
    _check_pitch(request.f0_method, alive)
    dataset = await _held_dataset(session, caller, request)
    held = await recordings_of(session, dataset)
    check_speakers(preset, dataset, held.shares)
    check_speech(dataset, held.inputs, held.seconds, preset.min_seconds, held.shares)
    order = lifecycle.Order(
        id=job_id,
        owner_id=caller.id,
        kind=JobKind.preprocess,
        name=dataset.name,
        dataset_id=dataset.id,
        dataset=dataset.slug,
        inputs=held.inputs,
        options=TrainingOptions(preset=preset.name, f0_method=request.f0_method),
        preset=preset.name,
        priority=request.priority,
        estimated_seconds=round(held.seconds / 10 + 5, 1),
        estimated_cost=0.0,
    )
    return await lifecycle.open_job(session, order)


def preset_of(request: TrainingRequest, alive: Sequence[workers.Announced]) -> str:
    """The name of the preset that a request means; raises InvalidInput for one that is unknown."""
    return presets.preset(_asked_preset(request) or presets.default_preset(workers.devices(alive))).name


def _asked_preset(request: TrainingRequest) -> str | None:
    """The preset that is meant: the one that is named, or the provider's own."""
    asked = request.preset or request.options.preset
    if request.provider is None:
        return asked
    provider = provider_named(request.provider)
    if asked is not None and asked not in provider.presets:
        raise InvalidInput(
            f"the preset {asked!r} is not one of {provider.name}; it has {', '.join(provider.presets)}", field="preset"
        )
    return asked or (provider.presets[0] if provider.speaks else None)


def _usable_preset(asked: str | None, alive: Sequence[workers.Announced]) -> presets.Preset:
    """The preset that was asked for, or the default; raises InvalidInput when it is unknown or cannot be prepared."""
    preset = presets.preset(asked or presets.default_preset(workers.devices(alive)))
    if preset.needs_hubert:
        workers.check_content(alive, preset.name)
    return preset


def _check_pitch(method: str, alive: Sequence[workers.Announced], field: str = "f0_method") -> None:
    check_method(method, field)
    workers.check_pitch(alive, "preprocessor", method, field)


async def _held_dataset(session: AsyncSession, caller: Caller, request: TrainingRequest | PreprocessRequest) -> Dataset:
    """The dataset of a new job, which keeps it from being deleted."""
    dataset = await find_dataset(session, caller, request.dataset_id, request.by_name)
    if not await catalogue.hold(session, dataset.id):
        raise NotFound(f"there is no dataset {dataset.slug!r}")
    return dataset
