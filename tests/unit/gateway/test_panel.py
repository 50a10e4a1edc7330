"""Which words of the training tab stand for which states of a job?"""

from __future__ import annotations

import pytest

from libs.common.jobs import JobState
from services.gateway.database import utcnow
from services.gateway.jobs.tables import Job
from services.gateway.panel.schemas import PanelJob

SHOWN = {
    "pending": "pending",
    "queued": "pending",
    "running": "training",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


@pytest.mark.parametrize("state", JobState)
def test_every_state_of_a_job_has_its_word_and_a_voice_is_there_only_when_it_was_published(state: JobState) -> None:
    waits = state in (JobState.pending, JobState.queued)
    job = Job(
        id="job_1",
        status=state.value,
        voice="anna",
        progress=40.0,
        started_at=None if waits else utcnow(),
        created_at=utcnow(),
    )

    shown = PanelJob.of(job)

    assert shown.status == SHOWN[state.value]
    assert (shown.model_available, shown.model) == ((True, "anna") if state is JobState.completed else (False, None))
