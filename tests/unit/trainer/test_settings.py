"""What does a trainer do when it is told nothing, and what may it be told to leave to others?"""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.trainer.settings import TrainerSettings
from tests.conftest import TOKEN


def test_a_trainer_may_leave_trainings_or_the_short_work_to_others_but_not_both() -> None:
    only_models = TrainerSettings(service_token=TOKEN, training_concurrency=0)
    only_trainings = TrainerSettings(service_token=TOKEN, model_jobs_at_once=0)

    assert (only_models.model_jobs_at_once, only_trainings.training_concurrency) == (1, 2)
    with pytest.raises(ValidationError, match="would do nothing"):
        TrainerSettings(service_token=TOKEN, training_concurrency=0, model_jobs_at_once=0)


def test_what_is_shipped_is_what_the_documents_say() -> None:
    settings = TrainerSettings(service_token=TOKEN)

    assert settings.training_concurrency == 2
    assert settings.training_timeout == timedelta(milliseconds=7_200_000)
    assert len(settings.retry_delays) == 3
