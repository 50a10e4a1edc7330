"""Manifests name files by checksum and are found by reference alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from libs.common import manifests
from libs.common.errors import StepResultLost
from libs.common.events import ManifestRef
from libs.common.paths import Paths
from libs.common.settings import CommonSettings


@pytest.fixture
def paths(make_settings: Callable[..., CommonSettings]) -> Paths:
    return Paths(make_settings())


def made(paths: Paths) -> tuple[ManifestRef, Path]:
    step = paths.experiment("anna").step("job_1", "train")
    file = step.attempt(1) / "voice.pth"
    manifests.write_whole(file, b"weights")
    manifest = manifests.Manifest(
        job_id="job_1",
        step="train",
        token=1,
        folder=paths.relative(step.attempt(1)),
        files=manifests.entries(paths, [file]),
    )
    return manifests.store(paths, step.manifest(1), manifest), file


def test_a_manifest_is_read_back_by_its_reference(paths: Paths) -> None:
    reference, file = made(paths)

    manifest = manifests.load(paths, reference)

    assert list(manifest.files) == [paths.relative(file)]
    assert manifests.verify(paths, manifest) == []


def test_a_changed_file_is_found_out(paths: Paths) -> None:
    reference, file = made(paths)
    file.write_bytes(b"Weights")

    assert manifests.verify(paths, manifests.load(paths, reference)) == [paths.relative(file)]


def test_a_missing_file_is_found_out(paths: Paths) -> None:
    reference, file = made(paths)
    file.unlink()

    assert manifests.verify(paths, manifests.load(paths, reference)) == [paths.relative(file)]


def test_a_changed_manifest_is_refused(paths: Paths) -> None:
    reference, _ = made(paths)
    where = paths.in_data(reference.path)
    where.write_text(where.read_text().replace("job_1", "job_2"))

    with pytest.raises(StepResultLost, match="not the one"):
        manifests.load(paths, reference)


def test_a_lost_manifest_says_what_is_missing(paths: Paths) -> None:
    reference, _ = made(paths)
    paths.in_data(reference.path).unlink()

    with pytest.raises(StepResultLost, match=r"manifest-1\.json"):
        manifests.load(paths, reference)


def test_what_is_damaged_is_named_with_its_step_and_not_taken_over(paths: Paths) -> None:
    reference, file = made(paths)
    whole = file.with_name("metrics.jsonl")
    whole.write_text("{}")
    step = paths.experiment("anna").step("job_1", "train")
    files = manifests.entries(paths, [file, whole])
    manifest = manifests.load(paths, reference).model_copy(update={"files": files})
    reference = manifests.store(paths, step.manifest(1), manifest)
    assert manifests.seems_whole(paths, reference)
    file.write_bytes(b"WEIGHTS")

    manifests.check(paths, manifest, [paths.relative(whole)])
    with pytest.raises(StepResultLost, match=r"voice\.pth") as raised:
        manifests.check(paths, manifest)
    manifests.discard_damaged(paths, reference)

    assert raised.value.problem()["step"] == "train"
    assert not file.exists()
    assert whole.exists()
    assert not manifests.seems_whole(paths, reference)


def test_without_its_manifest_nothing_of_an_attempt_is_taken_over(paths: Paths) -> None:
    reference, file = made(paths)
    paths.in_data(reference.path).unlink()

    manifests.discard_damaged(paths, reference)

    assert not file.parent.exists()


def test_a_link_is_replaced_in_one_step_and_removed_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    link = tmp_path / "now"

    manifests.point(link, tmp_path / "a")
    manifests.point(link, tmp_path / "b")

    assert link.resolve() == tmp_path / "b"
    manifests.point(link, tmp_path / "gone")
    assert not link.is_symlink()


FULL = """
import resource, signal, sys
from pathlib import Path
from libs.common.manifests import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), b"x" * 5000)
except OSError as error:
    print(error.errno)
"""


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"old")

    done = subprocess.run([sys.executable, "-c", FULL, str(target)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "27"
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
