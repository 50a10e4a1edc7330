"""Is it told what is in the file of a voice that speaks, and where there is none?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused
from libs.common.manifests import sha256_of
from libs.common.paths import Paths
from services.inference import models
from tests.integration.inference.speaking_voices import publish_speaking


def test_a_voice_that_speaks_tells_its_network_its_languages_and_its_licence(paths: Paths, tmp_path: Path) -> None:
    training = {"steps": 40, "epochs": 3}
    publish_speaking(paths, tmp_path / "scratch", training=training, licence={"name": "CPML-1.0"})
    version = paths.voice("linda").version("job_1")
    weights = {"gpt.head": torch.zeros(20, 3), "gpt.bias": torch.zeros(7), "batches": torch.tensor(5)}
    torch.save({"model": weights}, version.weights)

    facts = models.facts(version)

    assert (facts["network"], facts["version"], facts["sample_rate"]) == ("xtts", "xtts-v2", 24_000)
    assert (facts["precision"], facts["parameters"], facts["training"]) == ("fp32", 67, "epoch 3, step 40")
    assert (facts["language"], facts["licence"]) == ("en", "CPML-1.0")
    assert {"en", "de"} <= set(facts["languages"])
    assert (facts["size_bytes"], facts["sha256"]) == (version.weights.stat().st_size, sha256_of(version.weights))


def test_a_file_that_is_no_network_is_refused(paths: Paths, tmp_path: Path) -> None:
    publish_speaking(paths, tmp_path / "scratch")
    version = paths.voice("linda").version("job_1")

    with pytest.raises(ModelFileRefused):
        models.facts(version)
    torch.save({"model": {"gpt": "text"}}, version.weights)
    with pytest.raises(ModelFileRefused, match="no network of a voice that speaks"):
        models.facts(version)


@pytest.mark.parametrize("form", ["rvc", "applio", "fp16", "safetensors"])
def test_a_form_of_voices_that_convert_is_refused_by_name(paths: Paths, tmp_path: Path, form: str) -> None:
    publish_speaking(paths, tmp_path / "scratch")

    with pytest.raises(InvalidInput, match=f"linda speaks text, and a file of the form {form} cannot hold it"):
        models.write_file(paths.voice("linda").version("job_1"), form, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_voice_that_lives_with_its_provider_has_no_file_to_look_into(paths: Paths, tmp_path: Path) -> None:
    publish_speaking(paths, tmp_path / "scratch", kind="google", weights=None)

    with pytest.raises(InvalidInput, match="lives with google"):
        models.facts(models.find_version(paths, "linda", "job_1", elsewhere=True))
