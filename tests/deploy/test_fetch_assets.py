"""Does `scripts/fetch-assets` say what is there, fetch what is wanted, and refuse what is not the published file?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from scripts import fetch_assets
from scripts.asset_manifest import AssetFile, ManifestFault, choose, read_manifest
from scripts.asset_store import only_one
from services.gateway.jobs.presets import PRESETS
from tests.deploy.conftest import BODY, SHA256, left
from tests.deploy.file_server import Behaviour
from tests.deploy.files import PROJECT


def manifest(folder: Path, *files: AssetFile, terms: str = "", **other: object) -> Path:
    """A list of assets with one set `one`."""
    entry = {
        "name": "one",
        "usual": True,
        "licence": "Free-1.0",
        "licence_url": "https://example.org/licence",
        "terms": terms,
        "needed_by": "this test",
        "without": "the test is red",
        "changes": "the test is green",
        "files": [{"path": f.path, "url": f.url, "sha256": f.sha256, "size": f.size} for f in files],
    }
    path = folder / "assets.json"
    path.write_text(json.dumps({"sets": [entry | other]}))
    return path


def run(folder: Path, *arguments: str | Path) -> int:
    """`scripts/fetch-assets` in this process, into `folder/assets`, with the list in `folder`."""
    fixed = ("--manifest", folder / "assets.json", "--into", folder / "assets")
    return fetch_assets.main([str(argument) for argument in (*fixed, *arguments)])


# -- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_puts_files_where_the_services_look_for_them(tmp_path):
    settings = CommonSettings(service_token="t" * 16, assets_root=tmp_path)
    paths = Paths(settings)
    places = {file.under(tmp_path) for one in read_manifest() for file in one.files}

    assert {paths.hubert, paths.rmvpe} <= places
    for preset in (name for name in PRESETS if name.startswith("rvc-v")):
        version, rate = preset.split("-")[1:]
        folder = paths.pretrained if version == "v2" else paths.pretrained.with_name("pretrained")
        assert {folder / f"{f0}{part}{rate}.pth" for f0 in ("", "f0") for part in "GD"} <= places
    assert settings.xtts_path
    assert settings.xtts_path / "model.pth" in places


def test_every_entry_of_the_list_is_pinned_to_an_edition_and_says_its_licence_and_its_use():
    sets = read_manifest()

    for one in sets:
        assert one.licence in ("MIT", "CPML-1.0")
        for file in one.files:
            assert "/resolve/main/" not in file.url
            assert file.size is not None or one.name.endswith("-no-pitch")
    assert [one.name for one in sets if one.terms] == ["xtts"]
    assert [one.name for one in choose(sets, [])] == ["hubert", "rmvpe", "bases-v2-40k"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "../outside.pt"}, "could leave the folder"),
        ({"path": "/etc/passwd"}, "could leave the folder"),
        ({"url": "file:///etc/passwd"}, "no web address"),
        ({"sha256": ""}, "`sha256` of"),
        ({"sha256": "1234"}, "has no SHA-256"),
        ({"size": -1}, "not a number of bytes"),
    ],
)
def test_a_list_that_could_do_harm_is_refused(tmp_path, change, said):
    entry = {"path": "a.pt", "url": "https://example.org/a.pt", "sha256": SHA256, "size": 3} | change
    manifest(tmp_path, files=[entry])

    with pytest.raises(ManifestFault, match=said):
        read_manifest(tmp_path / "assets.json")


@pytest.mark.parametrize("text", ["", "{}", '{"sets": [3]}', '{"sets": [{"name": "a"}]}'])
def test_a_list_that_is_not_whole_is_refused(tmp_path, text, capsys):
    (tmp_path / "assets.json").write_text(text)

    assert run(tmp_path) == 1
    assert "the list of assets" in capsys.readouterr().err


# -- the command ------------------------------------------------------------------------------------------------------


def test_what_is_there_is_checked_and_not_fetched_again(tmp_path, server, file, capsys):
    manifest(tmp_path, file)
    assert run(tmp_path) == 0
    server.asked = []

    assert run(tmp_path, "one") == 0

    assert server.asked == []
    said = capsys.readouterr().out
    assert "hubert/a.pt: there, checked" in said
    assert "licence Free-1.0 (https://example.org/licence)" in said


def test_the_list_says_what_is_missing_and_what_works_without(tmp_path, file, capsys):
    manifest(tmp_path, file)

    assert run(tmp_path, "--list") == 0

    said = capsys.readouterr().out
    assert "one: missing (1 MB, Free-1.0, fetched when no set is named)" in said
    assert "without it  the test is red" in said
    assert "with it  the test is green" in said
    assert not (tmp_path / "assets").exists()


def test_a_file_that_was_tampered_with_after_it_came_is_found_by_verify(tmp_path, server, file, capsys):
    manifest(tmp_path, file)
    assert run(tmp_path) == 0
    assert run(tmp_path, "--verify") == 0
    file.under(tmp_path / "assets").write_bytes(b"!" + BODY[1:])
    capsys.readouterr()

    assert run(tmp_path, "--verify", "--json") == 1

    [one] = json.loads(capsys.readouterr().out)["sets"]
    assert (one["state"], one["files"]) == ("other", {"hubert/a.pt": "other"})


def test_a_file_of_ones_own_is_left_alone_unless_it_shall_be_replaced(tmp_path, server, file, capsys):
    manifest(tmp_path, file)
    own = file.under(tmp_path / "assets")
    own.parent.mkdir(parents=True)
    own.write_bytes(b"my own encoder")

    assert run(tmp_path) == 1
    assert "If it is your own, leave this set out" in capsys.readouterr().err
    assert own.read_bytes() == b"my own encoder"

    assert run(tmp_path, "--replace") == 0
    assert own.read_bytes() == BODY


def test_a_licence_with_terms_must_be_accepted_by_name(tmp_path, server, file, capsys):
    manifest(tmp_path, file, terms="Not for money.")

    assert run(tmp_path) == 1
    said = capsys.readouterr().err
    assert "Not for money." in said
    assert "--accept-licence Free-1.0" in said
    assert run(tmp_path, "--accept-licence", "Another-2.0") == 1
    assert server.asked == []

    assert run(tmp_path, "--accept-licence", "Free-1.0") == 0


def test_a_mirror_is_asked_for_the_same_path_and_cannot_send_another_file(tmp_path, server, capsys):
    manifest(tmp_path, AssetFile("a.pt", "https://huggingface.co/a.pt", SHA256, len(BODY)))

    assert run(tmp_path, "--mirror", server.url + "/") == 0
    assert (tmp_path / "assets" / "a.pt").read_bytes() == BODY

    server.files["/a.pt"].body = b"!" + BODY[1:]
    (tmp_path / "assets" / "a.pt").unlink()
    assert run(tmp_path, "--mirror", server.url) == 1
    assert left(tmp_path / "assets") == set()
    assert run(tmp_path, "--mirror", "ftp://example.org") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("cellar",), "there is no set 'cellar'; known: one"), (("--offline", "nowhere"), "there is no such folder")],
)
def test_what_makes_no_sense_is_refused(tmp_path, file, arguments, said, capsys):
    manifest(tmp_path, file)

    assert run(tmp_path, *arguments) == 1
    assert said in capsys.readouterr().err


def test_a_file_for_which_there_is_no_room_is_not_begun(tmp_path, server, capsys):
    manifest(tmp_path, AssetFile("a.pt", f"{server.url}/a.pt", SHA256, 10**18))

    assert run(tmp_path) == 1

    assert "MB are free: make room" in capsys.readouterr().err
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_said_and_not_a_traceback(tmp_path, file, capsys):
    manifest(tmp_path, file)
    (tmp_path / "assets").write_text("a file in the way")

    assert run(tmp_path) == 1
    assert "assets" in capsys.readouterr().err


def test_two_runs_do_not_write_the_same_files(tmp_path, file, capsys):
    manifest(tmp_path, file)

    with only_one(tmp_path / "assets"):
        assert run(tmp_path) == 1

    assert "another scripts/fetch-assets is at work" in capsys.readouterr().err


# -- from a folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of files, and a list whose server is nobody."""

    def make(size: int | None = len(BODY), **files: bytes) -> Path:
        manifest(tmp_path, AssetFile("hubert/a.pt", "http://127.0.0.1:9/a.pt", SHA256, size))
        for name, body in files.items():
            path = tmp_path / "shelf" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        return tmp_path / "shelf"

    return make


@pytest.mark.parametrize("size", [len(BODY), None])
@pytest.mark.parametrize("name", ["hubert__a.pt", "a.pt", "deep__down__copy of it (2).bin"])
def test_a_folder_gives_the_file_under_any_name_without_a_network(tmp_path, shelf, name, size):
    folder = shelf(size, **{name: BODY, "other.bin": b"?" * len(BODY)})

    assert run(tmp_path, "--offline", folder) == 0

    assert left(tmp_path / "assets") == {"hubert/a.pt"}
    assert (tmp_path / "assets" / "hubert" / "a.pt").read_bytes() == BODY
    assert (folder / name.replace("__", "/")).exists()


@pytest.mark.parametrize("body", [b"!" + BODY[1:], BODY[:-1], b""], ids=["tampered", "truncated", "empty"])
def test_a_folder_with_another_file_of_that_name_is_refused(tmp_path, shelf, body, capsys):
    folder = shelf(**{"a.pt": body})

    assert run(tmp_path, "--offline", folder) == 1

    assert "is not the published file" in capsys.readouterr().err
    assert left(tmp_path / "assets") == set()


def test_a_wrong_file_of_the_right_name_does_not_hide_the_right_one(tmp_path, shelf):
    folder = shelf(**{"a.pt": b"!" + BODY[1:], "kept__a.pt": BODY})

    assert run(tmp_path, "--offline", folder) == 0


def test_a_folder_without_the_file_is_said_with_the_checksum_to_look_for(tmp_path, shelf, capsys):
    folder = shelf(readme=b"nothing here")

    assert run(tmp_path, "--offline", folder) == 1
    assert SHA256 in capsys.readouterr().err


# -- as a program -----------------------------------------------------------------------------------------------------


def test_the_script_needs_nothing_but_python_and_says_what_works_without_each(tmp_path):
    environment = {"PATH": os.environ["PATH"], "ASSETS_ROOT": str(tmp_path / "assets")}
    command = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from scripts.fetch_assets import main; main(['--list'])"

    bare = subprocess.run([*command, code], env=environment, capture_output=True, text=True, timeout=60)
    shown = subprocess.run(
        [PROJECT / "scripts" / "fetch-assets", "--list"], env=environment, capture_output=True, text=True, timeout=60
    )

    assert bare.returncode == shown.returncode == 0, bare.stderr + shown.stderr
    assert bare.stdout == shown.stdout
    assert shown.stdout.startswith(f"in {tmp_path / 'assets'}:")
    assert "\nhubert: missing (190 MB, MIT, fetched when no set is named)\n" in shown.stdout
    assert "non-commercial" not in shown.stdout.split("\nhubert:")[1].split("\n\n")[0]


def test_progress_is_told_and_a_proxy_of_the_environment_is_asked(tmp_path, server):
    server.files["http://example.org/a.pt"] = Behaviour(BODY)
    manifest(tmp_path, AssetFile("a.pt", "http://example.org/a.pt", SHA256, len(BODY)))

    done = subprocess.run(
        [PROJECT / "scripts/fetch-assets", "--manifest", tmp_path / "assets.json", "--into", tmp_path / "assets"],
        env={"PATH": os.environ["PATH"], "http_proxy": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "a.pt  0.5 of 0.5 MB (100 %)" in done.stdout
    assert "a.pt: fetched and checked" in done.stdout
    assert (tmp_path / "assets" / "a.pt").read_bytes() == BODY
