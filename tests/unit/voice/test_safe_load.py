"""Model files are data: nothing in them runs, and nothing that they claim is believed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.safe_load import FAIRSEQ_STUBS, load_tensors
from tests.unit.voice.hostile.parts import Payload


def rewrite(source: Path, target: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, next((v for k, v in change.items() if name.endswith(k)), old.read(name)))
    return target


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"weight": OrderedDict(a=torch.arange(6.0).view(2, 3)), "sr": "40k", "f0": 1}, tmp_path / "good.pth")
    return tmp_path / "good.pth"


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_numbers_and_text_come_back(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "voice.pth"
    half = torch.randn(3, 4).half()
    value = {"weight": OrderedDict(a=half, b=half.T), "config": [1, [2, 3], "1"], "n": 7, "p": torch.nn.Parameter(half)}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)

    loaded = load_tensors(path)

    assert torch.equal(loaded["weight"]["a"], half)
    assert torch.equal(loaded["weight"]["b"], half.T)
    assert loaded["config"] == [1, [2, 3], "1"]
    assert loaded["n"] == 7


@pytest.mark.parametrize("stem", ["声音 测试", "Zoë", "A.B-c (1)", "x" * 200])
def test_a_file_may_have_any_name_which_torch_writes_inside(tmp_path: Path, stem: str) -> None:
    torch.save({"weight": OrderedDict(a=torch.ones(2))}, tmp_path / f"{stem}.pth")
    (tmp_path / f"{stem}.pth").rename(tmp_path / "other.pth")

    assert torch.equal(load_tensors(tmp_path / "other.pth")["weight"]["a"], torch.ones(2))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_payload_is_refused_and_never_runs(tmp_path: Path, zipped: bool, nested: bool) -> None:
    proof = tmp_path / "it-ran"
    payload: object = Payload(proof)
    value = {"weight": {"a": torch.ones(2), "b": [{"deep": payload}]}} if nested else payload
    torch.save(value, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)

    with pytest.raises(ModelFileRefused, match="system"):
        load_tensors(tmp_path / "evil.pth", stubs=FAIRSEQ_STUBS)

    assert not proof.exists()


def test_a_bare_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload(proof)))

    with pytest.raises(ModelFileRefused):
        load_tensors(tmp_path / "evil.pth")

    assert not proof.exists()


def test_a_storage_that_claims_more_than_its_bytes_is_refused(tmp_path: Path, weights: Path) -> None:
    liar = rewrite(weights, tmp_path / "liar.pth", {"/data/0": b"\0" * 8})

    with pytest.raises(ModelFileRefused, match="claims 24 bytes and has 8"):
        load_tensors(liar)


def test_a_tensor_of_a_hundred_gigabytes_over_four_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(25_000_000_000)}, tmp_path / "huge.pth")

    with pytest.raises(ModelFileRefused, match="larger than its storage"):
        load_tensors(tmp_path / "huge.pth")


def test_a_legacy_file_that_claims_a_hundred_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pth"
    torch.save({"weight": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))  # 1000 items become 2**31 - 1

    with pytest.raises(ModelFileRefused, match=r"claims|not a readable"):
        load_tensors(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path, weights: Path) -> None:
    bomb = rewrite(weights, tmp_path / "bomb.pth", {"/data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)

    with pytest.raises(ModelFileRefused, match="compressed"):
        load_tensors(bomb)


@pytest.mark.parametrize("keep", [0, 10, 300, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path: Path, weights: Path, keep: float) -> None:
    whole = weights.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(keep if keep >= 1 or keep == 0 else keep * len(whole))])

    with pytest.raises(ModelFileRefused):
        load_tensors(path)


def test_a_file_over_the_limit_and_a_missing_file_are_told(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ModelFileRefused, match="the limit is 100"):
        load_tensors(weights, max_bytes=100)
    with pytest.raises(NotFound):
        load_tensors(tmp_path / "nothing.pth")


@pytest.mark.skipif("VOICE_FIXTURES" not in os.environ, reason="VOICE_FIXTURES is not set")
def test_every_model_file_of_the_fixtures_opens() -> None:
    files = sorted(Path(os.environ["VOICE_FIXTURES"]).glob("**/*.pth"))
    files += sorted(Path(os.environ["VOICE_FIXTURES"]).glob("hubert_fairseq/*.pt"))

    for path in files:
        assert isinstance(load_tensors(path, stubs=FAIRSEQ_STUBS), dict), path

    assert files
