"""What a trainer may be told to leave to others."""

from __future__ import annotations

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
