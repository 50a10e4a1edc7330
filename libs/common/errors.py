"""What can go wrong, as one tree.

PlatformError
├── InvalidInput (422)            the request is understood and cannot be accepted
│   ├── InvalidName               a name, slug or key that may not be used
│   ├── UnsupportedAudio (415)    the content is no sound format that is accepted
│   ├── BrokenAudio               the content claims to be sound and cannot be decoded
│   ├── RecordingTooShort · RecordingTooLong · SilentRecording
│   ├── InsufficientAudioQuality  F-086
│   ├── DatasetEmpty · DatasetTooShort · DatasetNotPrepared
│   ├── ModelFileRefused          a model file that is unsafe or not what it claims
│   └── ProviderRefused           somebody else's service does not accept what it was sent
├── TooLarge (413) · TooMany (413)
├── Unauthenticated (401) · Forbidden (403)
├── NotFound (404)                also for what belongs to somebody else
│   └── VoiceSampleNotFound       F-085
├── Conflict (409)
│   ├── IllegalTransition         a job cannot go there from where it is
│   └── PreconditionFailed (412)
├── RangeNotSatisfiable (416)     a part of a file that it does not have
├── Busy (429)                    carries retry_after
├── Unavailable (503)             a part of the platform is away; retryable
│   ├── GpuUnavailable            F-088
│   ├── ProviderUnavailable       a provider of voices is not installed or not configured; not retryable
│   └── ProviderFailed            somebody else's service is away or refuses for now
├── StorageFull (507)             retryable
└── WorkFailed (500)              a step of a job failed
    ├── TrainingTimeout           F-087, resumable
    ├── TrainingDiverged          losses became NaN
    ├── TrainingCrashed           the training process died; retryable
    ├── ModelValidationFailed     F-089
    ├── StepTimedOut              another step than training; retryable
    ├── StepResultLost            what an earlier step made is gone or damaged
    ├── MessageTooLarge           a command or a result is more than a message holds
    ├── NothingConverted          every recording of a conversion job failed
    ├── NothingSaid               every text of a speech job failed
    ├── SynthesisFailed           a voice did not say a text in several attempts; retryable
    └── PoisonCommand             a command that kills its worker

Control flow of workers, not errors that anybody is told: TryAgain, Cancelled, Preempted, LeaseLost.
"""

from __future__ import annotations

from typing import ClassVar

from libs.common.platform_error import PlatformError as PlatformError


class InvalidInput(PlatformError):
    """The request cannot be accepted"""

    status = 422
    code = "invalid_input"


class InvalidName(InvalidInput):
    """This name cannot be used"""

    code = "invalid_name"
    suggested_actions = ("Use letters, digits, spaces and hyphens.",)


class UnsupportedAudio(InvalidInput):
    """This is not an accepted sound format"""

    status = 415
    code = "unsupported_audio"
    suggested_actions = ("Send wav, mp3, m4a, ogg, opus, webm, flac, or an mp4 with sound.",)


class BrokenAudio(InvalidInput):
    """The sound cannot be decoded"""

    code = "broken_audio"
    suggested_actions = ("Export the recording again, or convert it to WAV.",)


class RecordingTooShort(InvalidInput):
    """The recording is too short"""

    code = "recording_too_short"
    suggested_actions = ("Record a longer passage.",)


class RecordingTooLong(InvalidInput):
    """The recording is too long"""

    status = 413
    code = "recording_too_long"
    suggested_actions = ("Cut the recording into shorter files.",)


class SilentRecording(InvalidInput):
    """The recording holds no sound"""

    code = "silent_recording"
    suggested_actions = ("Check the microphone and its level.",)


class InsufficientAudioQuality(InvalidInput):
    """The audio is not good enough to train on"""

    code = "insufficient_audio_quality"
    suggested_actions = ("Replace the recordings that the report names.",)


class DatasetEmpty(InvalidInput):
    """The dataset holds no usable recording"""

    code = "dataset_empty"
    suggested_actions = ("Upload recordings first.",)


class DatasetTooShort(InvalidInput):
    """The dataset holds too little speech"""

    code = "dataset_too_short"
    suggested_actions = ("Upload more recordings of this voice.",)


class DatasetNotPrepared(InvalidInput):
    """The dataset is not prepared for training"""

    code = "dataset_not_prepared"
    suggested_actions = ("Run preprocessing for this dataset.",)


class ModelFileRefused(InvalidInput):
    """This model file is refused"""

    code = "model_file_refused"
    suggested_actions = ("Use a model file from a source that you trust, in RVC's or our own format.",)


class TooLarge(PlatformError):
    """The upload is too large"""

    status = 413
    code = "too_large"
    suggested_actions = ("Send smaller files, or cut long recordings into parts.",)


class TooMany(PlatformError):
    """Too many files in one request"""

    status = 413
    code = "too_many_files"
    suggested_actions = ("Send the files in several requests.",)


class Unauthenticated(PlatformError):
    """Sign in first"""

    status = 401
    code = "unauthenticated"
    suggested_actions = ("Sign in, and send the token as `Authorization: Bearer …`.",)


class Forbidden(PlatformError):
    """This is not allowed for you"""

    status = 403
    code = "forbidden"
    suggested_actions = ("Ask an administrator for the role that this needs.",)


class NotFound(PlatformError):
    """There is no such thing"""

    status = 404
    code = "not_found"
    suggested_actions = ("Check the name or id; list what you have.",)


class VoiceSampleNotFound(NotFound):
    """Voice sample not found"""

    code = "voice_sample_not_found"
    suggested_actions = ("Upload the recording again.",)


class Conflict(PlatformError):
    """This conflicts with the present state"""

    status = 409
    code = "conflict"


class IllegalTransition(Conflict):
    """The job cannot go there from its present state"""

    code = "illegal_transition"
    suggested_actions = ("Read the job again for its present state.",)


class PreconditionFailed(Conflict):
    """It has changed since you read it"""

    status = 412
    code = "precondition_failed"
    suggested_actions = ("Read it again, then repeat the change.",)


class RangeNotSatisfiable(PlatformError):
    """The file has no such range"""

    status = 416
    code = "range_not_satisfiable"
    suggested_actions = ("Ask for bytes within the file, or without Range for all of it.",)


class Busy(PlatformError):
    """Too much work is waiting already"""

    status = 429
    code = "busy"
    retryable = True
    suggested_actions = ("Try again after the time in Retry-After.",)


class Unavailable(PlatformError):
    """A part of the platform is not reachable"""

    status = 503
    code = "unavailable"
    retryable = True
    suggested_actions: ClassVar[tuple[str, ...]] = (
        "Try again in a moment.",
        "See /readyz of the service that is named.",
    )


class GpuUnavailable(Unavailable):
    """No GPU is available"""

    code = "gpu_unavailable"
    suggested_actions = ("Wait for a GPU node, or choose the preset `lite`.",)


class ProviderUnavailable(Unavailable):
    """This provider of voices cannot be used here"""

    code = "provider_unavailable"
    retryable = False
    suggested_actions = ("GET /api/v1/providers says what is missing and how to get it.",)


class ProviderFailed(Unavailable):
    """The provider of voices does not answer as it should"""

    code = "provider_failed"
    suggested_actions = ("Try again later.", "Look at the provider's own status page.")


class ProviderRefused(InvalidInput):
    """The provider of voices refuses"""

    code = "provider_refused"
    suggested_actions = ("Mend what the provider names, then retry the job.",)


class StorageFull(PlatformError):
    """There is no space left"""

    status = 507
    code = "storage_full"
    retryable = True
    suggested_actions = ("Free disk space on the data volume, then retry the job.",)


class WorkFailed(PlatformError):
    """A step of the job failed"""

    code = "work_failed"
    suggested_actions: ClassVar[tuple[str, ...]] = ("Read the job's log.",)


class TrainingTimeout(WorkFailed):
    """Training Timeout"""

    code = "training_timeout"
    suggested_actions = ("Retry the job to go on from the last checkpoint, or raise its time limit.",)


class TrainingDiverged(WorkFailed):
    """Training diverged"""

    code = "training_diverged"
    suggested_actions = ("Lower the learning rate.", "Check the recordings for damage.")


class TrainingCrashed(WorkFailed):
    """The training process ended unexpectedly"""

    code = "training_crashed"
    retryable = True
    suggested_actions = (
        "Retry the job; it goes on from the last checkpoint.",
        "Lower the batch size if memory ran out.",
    )


class ModelValidationFailed(WorkFailed):
    """Model Validation Failed"""

    code = "model_validation_failed"
    suggested_actions = ("Train longer, or with more and cleaner recordings.",)


class MessageTooLarge(WorkFailed):
    """The job is more than one message holds"""

    code = "message_too_large"
    suggested_actions = ("Use fewer recordings, or files with less in them.",)


class NothingConverted(WorkFailed):
    """None of the recordings could be converted"""

    code = "nothing_converted"
    suggested_actions = ("See the reason for each recording in the job's results.",)


class NothingSaid(WorkFailed):
    """None of the texts could be said"""

    code = "nothing_said"
    suggested_actions = ("See the reason for each text in the job's results.",)


class SynthesisFailed(WorkFailed):
    """The voice did not say the text"""

    code = "synthesis_failed"
    retryable = True
    suggested_actions = (
        "Try again, with another seed or a lower temperature.",
        "Write the sentence that is named differently.",
        "If it happens often, train the voice longer or with more clips.",
    )


class StepTimedOut(WorkFailed):
    """The step took too long"""

    code = "step_timed_out"
    retryable = True
    suggested_actions = (
        "Retry the job.",
        "If the machine is slow or the dataset large, raise the limit that is named.",
    )


class StepResultLost(WorkFailed):
    """What an earlier step made is gone or damaged"""

    code = "step_result_lost"
    suggested_actions = ("Retry the job: what is missing is made again, and the rest is kept.",)


class PoisonCommand(WorkFailed):
    """The command ended its worker twice without progress"""

    code = "poison_command"
    suggested_actions = ("Read the worker's log; the command is kept among the dead letters.",)


class TryAgain(Exception):
    """The work cannot be done now and may be later: the message goes back with a delay."""

    def __init__(self, error: PlatformError) -> None:
        super().__init__(error.detail)
        self.error = error


class Cancelled(Exception):
    """Somebody asked for the work to end."""


class Preempted(Exception):
    """The worker is asked to go: the work is saved and the message goes back at once."""


class LeaseLost(Exception):
    """Another worker owns the step now; whatever was made here is worthless."""
