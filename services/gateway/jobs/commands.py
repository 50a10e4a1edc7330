"""What does a worker have to be told for one step of a job?"""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.errors import DatasetNotPrepared
from libs.common.events import (
    BuildIndex,
    CheckSpeech,
    Command,
    ConvertRecordings,
    EvaluateVoice,
    MakeVoice,
    MakingOptions,
    ManifestRef,
    PrepareDataset,
    PublishVoice,
    SayTexts,
    TrainingOptions,
    TrainVoice,
    ValidateDataset,
)
from libs.common.jobs import Step
from libs.common.providers import SPEECH_PRESETS
from services.gateway.jobs.presets import preset
from services.gateway.jobs.tables import Job


def build(job: Job, step: Step, made: Mapping[Step, ManifestRef], after_token: int = 0) -> Command:
    """The command for `step`, with what earlier steps `made`; raises DatasetNotPrepared when something is missing.

    `after_token` is the highest lease token of the step that is known of.
    """
    voice, dataset = job.voice or job.dataset or "", job.dataset or ""

    def of(earlier: Step) -> ManifestRef:
        if earlier not in made:
            raise DatasetNotPrepared(f"step {step} of job {job.id} needs the result of {earlier}, which is not there")
        return made[earlier]

    frame = {
        "job_id": job.id,
        "step": step,
        "attempt": job.attempt,
        "experiment": job.experiment,
        "after_token": after_token,
    }
    match step:
        case Step.validate:
            return ValidateDataset(
                **frame, dataset=dataset, inputs=job.pinned, min_seconds=preset(job.preset).min_seconds
            )
        case Step.preprocess if job.preset in SPEECH_PRESETS:
            asked = TrainingOptions.model_validate(job.options)
            return CheckSpeech(**frame, dataset=dataset, clips=job.spoken, options=asked)
        case Step.preprocess:
            f0_method = TrainingOptions.model_validate(job.options).f0_method
            return PrepareDataset(**frame, dataset=dataset, inputs=job.pinned, preset=job.preset, f0_method=f0_method)
        case Step.train:
            options = TrainingOptions.model_validate(job.options)
            return TrainVoice(**frame, voice=voice, prepared=of(Step.preprocess), options=options)
        case Step.index:
            index_mode = TrainingOptions.model_validate(job.options).index_mode
            return BuildIndex(**frame, voice=voice, prepared=of(Step.preprocess), index_mode=index_mode)
        case Step.evaluate:
            return EvaluateVoice(
                **frame,
                voice=voice,
                prepared=of(Step.preprocess),
                trained=of(Step.train),
                indexed=of(Step.index),
            )
        case Step.publish:
            converts = job.preset not in SPEECH_PRESETS
            return PublishVoice(
                **frame,
                voice=voice,
                display_name=job.name,
                dataset=dataset,
                inputs=job.pinned,
                prepared=of(Step.preprocess),
                trained=of(Step.train),
                indexed=of(Step.index) if converts else None,
                evaluated=of(Step.evaluate) if converts else None,
                preset=job.preset,
            )
        case Step.make:
            making = MakingOptions.model_validate(job.options)
            return MakeVoice(**frame, voice=voice, display_name=job.name, options=making)
        case Step.convert:
            return ConvertRecordings(**frame, voice=voice, inputs=job.recordings, settings=job.options)
        case Step.say:
            return SayTexts(**frame, texts=job.texts, settings=job.options)
