"""Does scripts/check-fixtures see what agrees, name what does not, and let nothing pass unseen?"""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from libs.voice.reference import report
from libs.voice.reference.run import check_folder, kind_of
from scripts import check_fixtures
from tests.unit.voice.reference.small_fixture import read, write, write_fixture

PROJECT = Path(__file__).parents[4]


def failures(root: Path) -> list[str]:
    return [f"{row.part}: {row.quantity}" for row in check_folder(root).rows if not row.ok]


def test_data_that_agree_are_all_right_and_give_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_fixture(tmp_path / "data")

    status = check_fixtures.main([str(tmp_path / "data"), "--json", str(tmp_path / "out" / "rows.json")])

    assert status == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split("  ")[0] == "fixture"
    assert "cb_x_output" in told
    document = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert document["ok"] is True
    assert document["failed"] == 0
    assert {"fixture", "quantity", "error", "tolerance", "ok"} <= document["rows"][0].keys()
    assert document["inputs"] == {"live": ["live.npz: cb_x_infer_int16", "live.npz: cb_x_input_int16"]}


@pytest.mark.parametrize("key", ["cb_x_output", "cb_x_input_ring_tail_every_4", "cb_x_sola_tail"])
def test_one_changed_number_is_named(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    arrays[key].flat[3] += 1e-3
    write(folder, document, arrays)

    assert check_fixtures.main([str(tmp_path), "--quiet"]) == 1

    assert failures(tmp_path) == [f"callback x: {key}"]
    assert key in capsys.readouterr().out


def test_a_change_within_the_tolerance_is_none(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    arrays["cb_x_output"] = arrays["cb_x_output"] + np.float32(5e-6)
    write(folder, document, arrays)

    assert failures(tmp_path) == []


def test_a_number_that_is_none_is_a_failure(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    arrays["cb_x_output"][0, 0] = np.nan
    write(folder, document, arrays)

    assert failures(tmp_path) == ["callback x: cb_x_output"]


def test_an_integer_that_differs_by_one_is_a_failure(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    document["callback_x"]["sola_offsets"][2] += 1
    write(folder, document, arrays)

    assert failures(tmp_path) == ["callback x: sola_offsets"]


def test_an_array_that_no_check_knows_is_a_failure(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    write(folder, document, {**arrays, "cb_x_novelty": np.zeros(3)})

    assert failures(tmp_path) == ["not checked: live.npz: cb_x_novelty"]


def test_an_array_that_the_json_does_not_list_and_one_that_is_gone_are_failures(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    _, arrays = read(folder)
    np.savez(folder / "live.npz", **arrays, more=np.zeros(2))
    assert failures(tmp_path) == ["live.json: more", "not checked: live.npz: more"]

    del arrays["cb_x_sola_tail"]
    np.savez(folder / "live.npz", **arrays)
    assert "live.json: cb_x_sola_tail" in failures(tmp_path)
    assert any("KeyError" in row.reason for row in check_folder(tmp_path).rows)


def test_an_array_of_another_shape_or_type_than_documented_is_a_failure(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    _, arrays = read(folder)
    arrays["cb_x_sola_tail"] = arrays["cb_x_sola_tail"].astype(np.float64)
    np.savez(folder / "live.npz", **arrays)

    assert failures(tmp_path) == ["live.json: cb_x_sola_tail"]


def test_an_entry_of_the_json_that_no_check_knows_is_a_failure(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    document["callback_x"]["loudness"] = 0.5
    document["more"] = {"deep": [1, 2]}
    write(folder, document, arrays)

    assert failures(tmp_path) == [
        "not checked: live.json: callback_x.loudness",
        "not checked: live.json: more.deep",
    ]


def test_a_file_that_no_check_knows_is_a_failure_and_a_readme_is_not(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    (folder / "README.md").write_text("for people")
    (folder / "model.pth").write_bytes(b"?")
    (tmp_path / "stray.npz").write_bytes(b"?")

    assert failures(tmp_path) == ["not checked: model.pth", "not checked: stray.npz"]


def test_an_unknown_kind_and_a_folder_without_description_are_failures(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path)
    document, arrays = read(folder)
    write(folder, {**document, "kind": "something new"}, arrays)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.npy").write_bytes(b"?")

    rows = [row for row in check_folder(tmp_path).rows if not row.ok]

    assert any("something new" in row.reason and "realtime path" in row.reason for row in rows)
    assert any(row.fixture == "bare" and "no JSON" in row.reason for row in rows)


def test_a_json_that_cannot_be_read_is_a_failure_and_the_other_folders_go_on(tmp_path: Path) -> None:
    write_fixture(tmp_path / "good")
    bad = write_fixture(tmp_path / "bad")
    (bad / "live.json").write_text("{half")

    rows = check_folder(tmp_path).rows

    assert {row.fixture for row in rows if not row.ok} == {"bad/live"}
    assert sum(row.fixture == "good/live" for row in rows) == 6


def test_no_fixture_at_all_is_status_1_and_no_folder_is_status_2(tmp_path: Path) -> None:
    assert check_fixtures.main([str(tmp_path)]) == 1

    with pytest.raises(SystemExit) as refusal:
        check_fixtures.main([str(tmp_path / "nowhere")])
    assert refusal.value.code == 2


def test_a_path_that_leaves_the_fixtures_is_not_followed(tmp_path: Path) -> None:
    folder = write_fixture(tmp_path / "data")
    document, arrays = read(folder)
    block = {"cases": [{"tag": "a", "index_rate": 0, "key": 0}], "synthesizer": "../../outside.pth", "tolerance": {}}
    write(folder, {**document, "block_inference": {**block, "stub_f0": "m=n frames, f=1"}}, arrays)
    (tmp_path / "outside.pth").write_bytes(b"?")

    reasons = [row.reason for row in check_folder(tmp_path / "data").rows]

    assert any("lies outside the fixtures" in reason for reason in reasons)


def test_the_executable_starts_from_anywhere(tmp_path: Path) -> None:
    write_fixture(tmp_path / "data")

    done = subprocess.run(
        [PROJECT / "scripts" / "check-fixtures", "data", "--quiet"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "6 quantities compared, 0 failed" in done.stdout


def test_the_documents_table_has_one_line_per_part_and_the_rest_stays(tmp_path: Path) -> None:
    write_fixture(tmp_path / "data")
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- comparison -->\nold\n<!-- end -->\n\nafter\n")

    check_fixtures.main([str(tmp_path / "data"), "--markdown", str(page)])

    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("<!-- end -->\n\nafter\n")
    assert "old" not in text
    assert "| live | callback x | 6 |" in text


def test_a_document_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    write_fixture(tmp_path / "data")
    page = tmp_path / "page.md"
    page.write_text("# Title\n")

    with pytest.raises(ValueError, match=r"page\.md has 0 parts"):
        report.renew_document(page, check_folder(tmp_path / "data"), date(2026, 1, 1))

    assert page.read_text() == "# Title\n"


def test_lists_of_tensors_are_a_kind_without_the_word() -> None:
    assert kind_of({"name": "rmvpe", "n_keys": 1, "keys": {}}) == "inventory"
    assert kind_of({"name": "rmvpe"}) is None
    assert kind_of([1]) is None
    assert kind_of({"kind": 3}) is None


@pytest.mark.slow
def test_all_reference_data_agree(voice_fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = check_fixtures.main([str(voice_fixtures), "--quiet"])

    assert status == 0, capsys.readouterr().out


def test_the_page_tells_of_a_whole_comparison_in_which_nothing_failed() -> None:
    page = (PROJECT / "docs" / "rvc-compatibility.md").read_text()
    part = page.split("<!-- comparison -->")[1].split("<!-- end -->")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]

    assert len(lines) > 50
    assert {line[0] for line in lines} >= {"inventory", "pipeline", "realtime", "rmvpe", "hubert_fairseq", "rvc_v1_f0"}
    assert {line[-1] for line in lines} == {"yes"}
    assert f"{sum(int(line[2]) for line in lines)} quantities compared, 0 failed" in part


@pytest.mark.slow
def test_every_stored_output_is_really_compared(voice_fixtures: Path, tmp_path: Path) -> None:
    """Each array that is no input, changed alone, fails by its name."""
    shutil.copy(voice_fixtures / "recipe.json", tmp_path)
    folder = Path(shutil.copytree(voice_fixtures / "rvc_v1_f0", tmp_path / "rvc_v1_f0"))
    inputs = {name.split(": ")[1] for name in check_folder(tmp_path).inputs["rvc_v1_f0"]}
    with np.load(folder / "stages.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    outputs = {key: value + value.dtype.type(1) for key, value in arrays.items() if key not in inputs}
    assert len(outputs) > 10

    np.savez(folder / "stages.npz", **{**arrays, **outputs})

    failed = {row.quantity for row in check_folder(tmp_path).rows if not row.ok}
    assert failed >= outputs.keys()
