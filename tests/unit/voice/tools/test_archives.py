"""A voice goes into one file and comes out again, in the form of whichever program."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused, NotFound
from libs.voice.artefact import read_voice
from libs.voice.safe_load import load_tensors
from libs.voice.tools import convert_file, open_archive, verify_voice, write_archive
from tests.unit.voice.voice_files import (
    applio_voice,
    discriminator,
    index_file,
    lite_voice,
    rvc_voice,
    training_file,
)

CARD = {"name": "Anna", "consent": "c1", "content_encoder": {"name": "hubert"}}


def zip_of(path: Path, files: dict[str, Path | bytes]) -> Path:
    """A zip by hand, compressed as people's programs do it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return rvc_voice(tmp_path / "anna.pth")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return index_file(tmp_path / "anna.index", rows=300)


def test_rvcs_form_has_its_names_and_its_keys(tmp_path: Path, index: Path) -> None:
    applio = applio_voice(tmp_path / "x.pth", epoch=20)

    write_archive("rvc", applio, index, CARD, tmp_path / "anna.zip")

    assert names(tmp_path / "anna.zip") == ["anna.pth", "added_IVF7_Flat_nprobe_1_anna_v2.index"]
    held = open_archive(tmp_path / "anna.zip", tmp_path / "out")
    file = load_tensors(held.model)
    assert list(file) == ["weight", "config", "info", "sr", "f0", "version"]
    assert (file["info"], file["sr"], file["f0"]) == ("20epoch", "16k", 1)
    assert held.index is not None
    assert held.index.read_bytes() == index.read_bytes()
    assert held.card is None
    assert verify_voice(held.model, held.index).index_rows == 300


def test_applios_form_has_its_names_and_its_keys(tmp_path: Path, voice: Path, index: Path) -> None:
    write_archive("applio", voice, index, CARD, tmp_path / "anna.zip")

    assert names(tmp_path / "anna.zip") == ["anna/anna_20e_0s.pth", "anna/anna.index"]
    held = open_archive(tmp_path / "anna.zip", tmp_path / "out")
    file, theirs = load_tensors(held.model), load_tensors(applio_voice(tmp_path / "x.pth"))
    assert list(file) == list(theirs)
    assert {key: type(value) for key, value in file.items() if value is not None and key != "weight"} == {
        key: type(value) for key, value in theirs.items() if file[key] is not None and key != "weight"
    }
    assert (file["sr"], file["f0"], file["epoch"], file["model_name"]) == (16_000, True, 20, "anna")
    assert verify_voice(held.model, held.index).info.training == "epoch 20, step 0"


def test_a_voice_of_applio_keeps_what_applio_said(tmp_path: Path) -> None:
    write_archive("applio", applio_voice(tmp_path / "x.pth", epoch=9, step=90), None, None, tmp_path / "x.zip")

    held = open_archive(tmp_path / "x.zip", tmp_path / "out")

    assert held.model.name == "x_9e_90s.pth"
    assert read_voice(held.model).config == read_voice(tmp_path / "x.pth").config


@pytest.mark.parametrize("form", ["fp32", "safetensors"])
def test_our_form_keeps_the_file_and_the_card(tmp_path: Path, voice: Path, index: Path, form: str) -> None:
    source = tmp_path / ("v.safetensors" if form == "safetensors" else "v.pth")
    convert_file(voice, source, form)  # type: ignore[arg-type]

    write_archive("voicewright", source, index, CARD, tmp_path / "anna.zip")
    held = open_archive(tmp_path / "anna.zip", tmp_path / "out")

    assert held.model.read_bytes() == source.read_bytes()
    assert held.model.suffix == source.suffix
    assert held.index is not None
    assert held.card == CARD
    assert "anna/voice.json" in names(tmp_path / "anna.zip")


def test_a_voice_without_a_card_gets_one_that_says_what_its_file_says(tmp_path: Path) -> None:
    write_archive("voicewright", lite_voice(tmp_path / "l.pth"), None, None, tmp_path / "l.zip")

    held = open_archive(tmp_path / "l.zip", tmp_path / "out")

    assert held.index is None
    assert held.card is not None
    assert held.card["model"]["network"] == "lite"


@pytest.mark.parametrize("form", ["rvc", "applio", "voicewright"])
def test_the_same_voice_gives_the_same_archive(tmp_path: Path, voice: Path, index: Path, form: str) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_archive(form, voice, index, CARD, tmp_path / place / "anna.zip")  # type: ignore[arg-type]

    assert (tmp_path / "a" / "anna.zip").read_bytes() == (tmp_path / "b" / "anna.zip").read_bytes()


def test_rvc_and_applio_take_no_lite_voice(tmp_path: Path) -> None:
    for form in ("rvc", "applio"):
        with pytest.raises(InvalidInput, match="choose the form voicewright"):
            write_archive(form, lite_voice(tmp_path / "l.pth"), None, None, tmp_path / "l.zip")  # type: ignore[arg-type]


def test_a_form_or_a_name_that_does_not_exist_is_refused(tmp_path: Path, voice: Path) -> None:
    with pytest.raises(InvalidInput, match="rvc, applio, voicewright"):
        write_archive("sovits", voice, None, None, tmp_path / "a.zip")  # type: ignore[arg-type]
    for name in ("", "../up", "a\\b", ".hidden", "x" * 200):
        with pytest.raises(InvalidInput, match="cannot be the name"):
            write_archive("rvc", voice, None, None, tmp_path / "a.zip", name=name)


def test_an_index_that_does_not_fit_is_not_packed(tmp_path: Path, voice: Path) -> None:
    with pytest.raises(ModelFileRefused, match="256"):
        write_archive("rvc", voice, index_file(tmp_path / "i.index", width=256), None, tmp_path / "a.zip")

    assert not (tmp_path / "a.zip").exists()


def test_a_full_disk_leaves_no_part_of_an_archive(tmp_path: Path, voice: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    program = (
        "import pathlib, resource, signal, sys; from libs.voice.tools import write_archive; "
        "from libs.common.errors import StorageFull; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try: write_archive('voicewright', pathlib.Path(sys.argv[1]), None, None, pathlib.Path(sys.argv[2]))\n"
        "except StorageFull: sys.exit(17)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(voice), str(out / "a.zip")], capture_output=True, check=False
    )

    assert done.returncode == 17, done.stderr
    assert list(out.iterdir()) == []


def test_an_archive_as_people_pass_it_on_is_opened(tmp_path: Path, voice: Path, index: Path) -> None:
    training_file(tmp_path / "G_1.pth")
    training_file(tmp_path / "D_1.pth", discriminator())
    path = zip_of(
        tmp_path / "shared.zip",
        {
            "Anna/anna.pth": voice,
            "Anna/G_1.pth": tmp_path / "G_1.pth",
            "Anna/D_1.pth": tmp_path / "D_1.pth",
            "Anna/added_IVF7_Flat_nprobe_1_anna_v2.index": index,
            "Anna/trained_IVF7_Flat_nprobe_1_anna_v2.index": b"not even looked at",
            "Anna/total_fea.npy": b"left in",
            "__MACOSX/Anna/._anna.pth": b"left in",
            "readme.txt": b"hello",
        },
    )

    held = open_archive(path, tmp_path / "out")

    assert held.model.name == "anna.pth"
    assert held.index is not None
    assert held.index.name.startswith("added_")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted([held.model.name, held.index.name])


def test_names_from_other_systems_become_plain_names(tmp_path: Path, voice: Path) -> None:
    path = tmp_path / "w.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr('Ordner\\An"na; $(x)`y`.PTH', voice.read_bytes())

    assert open_archive(path, tmp_path / "out").model.name == "An_na_ _(x)_y_.pth"


@pytest.mark.parametrize(
    ("other", "reason"),
    [("two.pth", "holds 2 voices"), ("G_1.pth", "training checkpoint"), ("D_1.pth", "discriminator")],
)
def test_an_archive_without_exactly_one_voice_is_refused(tmp_path: Path, voice: Path, other: str, reason: str) -> None:
    rvc_voice(tmp_path / "two.pth")
    training_file(tmp_path / "G_1.pth")
    training_file(tmp_path / "D_1.pth", discriminator())
    files: dict[str, Path | bytes] = {other: tmp_path / other}
    if other == "two.pth":
        files["anna.pth"] = voice

    with pytest.raises(ModelFileRefused, match=reason):
        open_archive(zip_of(tmp_path / "x.zip", files), tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_neighbour_of_a_voice_is_refused_and_nothing_is_left(tmp_path: Path, voice: Path, index: Path) -> None:
    narrow = index_file(tmp_path / "narrow.index", width=256)
    cases: list[tuple[dict[str, Path | bytes], str]] = [
        ({"i.index": narrow}, "have 256 values and this voice needs 768"),
        ({"i.index": b"IwFl"}, "refused"),
        ({"i.index": index, "j.index": index}, "2 indices"),
        ({"other.pth": b"hello"}, "no torch file"),
        ({"voice.json": b"{"}, "no JSON"),
    ]
    for files, reason in cases:
        path = zip_of(tmp_path / "x.zip", {"anna.pth": voice, **files})
        with pytest.raises(ModelFileRefused, match=reason):
            open_archive(path, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == [], files


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (b'{"sample_rate": NaN}', "infinite or none at all"),
        (b'{"quality": [1, {"level_db": -Infinity}]}', "infinite or none at all"),
        (b'{"share": 1e999}', "infinite or none at all"),
        (b'{"name": "Anna\\u0000"}', "NUL"),
        (b'{"a\\u0000": 1}', "NUL"),
        (b'{"origin": {"card": {"name": "\\ud800"}}}', "lone surrogate"),
    ],
)
def test_a_card_that_no_store_could_keep_is_refused(tmp_path: Path, voice: Path, card: bytes, reason: str) -> None:
    path = zip_of(tmp_path / "x.zip", {"anna.pth": voice, "voice.json": card})

    with pytest.raises(ModelFileRefused, match=reason):
        open_archive(path, tmp_path / "out")


def test_a_voice_that_speaks_text_is_refused_as_one(tmp_path: Path, voice: Path) -> None:
    archive = zip_of(tmp_path / "linda.zip", {"linda.pth": voice, "voice.json": b'{"kind": "xtts"}'})

    with pytest.raises(ModelFileRefused, match=r"a voice that speaks text \(xtts\)"):
        open_archive(archive, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_over_the_limit_or_missing_is_told(tmp_path: Path, voice: Path) -> None:
    path = zip_of(tmp_path / "x.zip", {"anna.pth": voice})

    with pytest.raises(ModelFileRefused, match="more than 1000 bytes"):
        open_archive(path, tmp_path / "out", max_bytes=1000)
    with pytest.raises(NotFound):
        open_archive(tmp_path / "nothing.zip", tmp_path / "out")


def test_a_model_in_an_archive_has_a_limit_of_its_own(
    tmp_path: Path, voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(tmp_path / "x.zip", {"anna.pth": voice})
    monkeypatch.setattr("libs.voice.tools.unpack.MAX_TRAINING_BYTES", 1000)

    with pytest.raises(ModelFileRefused, match=r"anna\.pth has \d+ bytes; the limit is 1000"):
        open_archive(path, tmp_path / "out")


def test_the_cards_of_this_platform_survive_as_json(tmp_path: Path, voice: Path) -> None:
    card = {"name": "Zoë", "deep": {"list": [1, 2.5, None, True]}}

    write_archive("voicewright", voice, None, card, tmp_path / "z.zip", name="Zoë")
    held = open_archive(tmp_path / "z.zip", tmp_path / "out")

    assert held.card == json.loads(json.dumps(card))
    assert held.model.name == "Zoë.pth"
    assert torch.equal(read_voice(held.model).weights["emb_g.weight"], read_voice(voice).weights["emb_g.weight"])
