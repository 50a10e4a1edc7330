"""Messages survive JSON, have one subject each, and cannot be changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.events import (
    CATALOGUE,
    COMMANDS,
    EVENTS,
    PROGRESS,
    CheckSpeech,
    Envelope,
    InputFile,
    PrepareDataset,
    SpokenClip,
    StepProgress,
    TrainingOptions,
    ValidateDataset,
    wrap,
)
from libs.common.jobs import Lane, Step

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)


@given(job=st.from_regex(r"job_[0-9a-z]{4,20}", fullmatch=True), dataset=texts, sample=texts, attempt=st.integers(1, 9))
def test_a_command_survives_json(job: str, dataset: str, sample: str, attempt: int) -> None:
    command = ValidateDataset(
        job_id=job,
        step=Step.validate,
        attempt=attempt,
        experiment="e",
        dataset=dataset,
        inputs=(InputFile(sample_id=sample, sha256="0" * 64, extension="wav"),),
    )

    envelope = wrap(command, id=command.message_id, subject=command.subject(Lane.high), service="gateway")
    back = Envelope.model_validate_json(envelope.model_dump_json()).open()

    assert back == command


@pytest.mark.parametrize("speaker", [0, 1, 108])
def test_whose_a_recording_is_survives_json_and_takes_no_room_for_the_first(speaker: int) -> None:
    clip = SpokenClip(sample_id="smp_1", sha256="0" * 64, extension="wav", speaker=speaker)
    plain = InputFile(sample_id="smp_1", sha256="0" * 64, extension="wav", speaker=speaker)
    frame = {"job_id": "job_1", "step": Step.preprocess, "experiment": "e", "dataset": "d"}
    commands = [
        PrepareDataset(**frame, inputs=(plain,)),
        CheckSpeech(**frame, clips=(clip,), options=TrainingOptions()),
    ]

    sent = [wrap(command, id="1", subject="x", service="gateway") for command in commands]

    assert [Envelope.model_validate_json(envelope.model_dump_json()).open() for envelope in sent] == commands
    written = [sent[0].data["inputs"][0], sent[1].data["clips"][0]]
    assert ["speaker" in item for item in written] == [speaker != 0] * 2
    assert InputFile.model_validate({"sample_id": "smp_1", "sha256": "0" * 64, "extension": "wav"}).speaker == 0


@pytest.mark.parametrize("speaker", [-1, 109, 1.5, "one"])
def test_a_speaker_that_no_table_has_is_refused(speaker: object) -> None:
    with pytest.raises(ValidationError, match="speaker"):
        InputFile(sample_id="smp_1", sha256="0" * 64, extension="wav", speaker=speaker)  # type: ignore[arg-type]


@given(loss=st.floats(allow_nan=False, allow_infinity=False), fraction=st.floats(0, 1))
def test_progress_survives_json(loss: float, fraction: float) -> None:
    progress = StepProgress(job_id="job_1", step=Step.train, loss=loss, fraction=fraction)

    envelope = wrap(progress, id="1", subject=progress.subject(), service="trainer")

    assert Envelope.model_validate_json(envelope.model_dump_json()).open() == progress


def test_an_envelope_is_a_cloud_event() -> None:
    command = PrepareDataset(job_id="job_1", step=Step.preprocess, experiment="e", dataset="d", inputs=())

    body = wrap(command, id="x", subject="cmd.preprocessor.prepare.low", service="gateway").model_dump(mode="json")

    assert {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"} <= set(body)
    assert body["specversion"] == "1.0"
    assert body["type"] == "voicewright.command.PrepareDataset.v1"


def test_messages_are_frozen() -> None:
    options = TrainingOptions()

    with pytest.raises(ValidationError):
        options.preset = "other"  # type: ignore[misc]


def test_an_unknown_type_is_refused_by_name() -> None:
    envelope = wrap(TrainingOptions(), id="1", subject="x", service="s").model_copy(update={"type": "nonsense"})

    with pytest.raises(ValueError, match="nonsense"):
        envelope.open()


def test_every_message_of_the_catalogue_is_listed_once() -> None:
    assert len(CATALOGUE) == len(COMMANDS) + len(EVENTS) + len(PROGRESS)


def test_command_subjects_carry_service_verb_and_lane() -> None:
    command = PrepareDataset(job_id="job_1", step=Step.preprocess, experiment="e", dataset="d", inputs=())

    assert command.subject(Lane.normal) == "cmd.preprocessor.prepare.normal"
    assert command.message_id == "job_1.preprocess.1"


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("epochs", 1001), ("batch_size", 0), ("batch_size", 65)])
def test_training_options_outside_their_range_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainingOptions(**{field: value})
