"""Does a download end whole and right, or with nothing of that name, whatever the server, the line and the disk do?"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from scripts.asset_download import Patience, download
from scripts.asset_manifest import AssetError, AssetFile, DownloadFailed, NoRoom, WrongContents
from scripts.asset_store import Draft, check_room
from tests.deploy.conftest import BODY, SHA256, left
from tests.deploy.file_server import Behaviour

QUICK = Patience(attempts=3, pause=0.0, silence=10.0)


def refuse(_: int) -> None:
    raise AssertionError("nothing was to be received")


def ignore(_: int) -> None:
    pass


# -- a line that breaks, servers that differ --------------------------------------------------------------------------


def test_a_file_arrives_and_everybody_may_read_it(tmp_path, server, file):
    counts: list[int] = []

    download(file, tmp_path, counts.append, QUICK)

    assert left(tmp_path) == {"hubert/a.pt"}
    assert file.under(tmp_path).read_bytes() == BODY
    assert file.under(tmp_path).stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "hubert").stat().st_mode & 0o777 == 0o755
    assert sum(counts) == len(BODY)


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, server, file):
    server.files["/a.pt"].breaks = [200_000, 100_000]

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, "bytes=200000-", "bytes=300000-"]
    assert server.asked[1][1]["If-Range"] == '"first"'


def test_the_next_run_goes_on_where_the_last_one_gave_up(tmp_path, server, file):
    server.files["/a.pt"].breaks = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="200000 bytes are kept"):
        download(file, tmp_path, ignore, QUICK)
    assert not file.under(tmp_path).exists()
    server.asked = []
    counts: list[int] = []

    download(file, tmp_path, counts.append, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY
    assert server.ranges() == ["bytes=200000-"]
    assert sum(counts) == len(BODY) - 200_000


def test_a_server_that_knows_no_ranges_is_asked_for_everything_again(tmp_path, server, file):
    server.files["/a.pt"] = Behaviour(BODY, ranges=False, breaks=[200_000])

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY


def test_a_part_is_never_joined_to_another_edition(tmp_path, server, file):
    server.files["/a.pt"] = Behaviour(b"\0" * len(BODY), etag='"older"', breaks=[200_000, 0, 0, 0])
    with pytest.raises(DownloadFailed):
        download(file, tmp_path, ignore, QUICK)
    server.files["/a.pt"] = Behaviour(BODY, etag='"newer"')

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("mark", ["", 'W/"weak"'])
def test_a_part_of_which_nobody_knows_the_edition_is_not_gone_on_from(tmp_path, server, file, mark):
    server.files["/a.pt"] = Behaviour(BODY, etag=mark, breaks=[200_000])

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY
    assert server.ranges() == [None, None]


def test_another_part_than_was_asked_for_is_thrown_away(tmp_path, server, file):
    server.files["/a.pt"] = Behaviour(BODY, breaks=[200_000], first_byte=10)

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY


def test_a_redirect_is_followed_with_the_part_that_is_asked_for(tmp_path, server, file):
    server.files["/moved"] = Behaviour(BODY, breaks=[200_000])
    server.files["/a.pt"] = Behaviour(moved_to=f"{server.url}/moved")

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY
    assert [path for path, _ in server.asked] == ["/a.pt", "/moved", "/a.pt", "/moved"]
    assert server.ranges() == [None, None, "bytes=200000-", "bytes=200000-"]


def test_a_redirect_to_a_file_of_this_machine_is_not_followed(tmp_path, server, file):
    (tmp_path / "secret").write_bytes(BODY)
    server.files["/a.pt"] = Behaviour(moved_to=(tmp_path / "secret").as_uri())

    with pytest.raises(DownloadFailed):
        download(file, tmp_path, refuse, QUICK)

    assert left(tmp_path) == {"secret"}


def test_a_busy_server_is_asked_again(tmp_path, server, file):
    server.files["/a.pt"].statuses = [503, 429]

    download(file, tmp_path, ignore, QUICK)

    assert file.under(tmp_path).read_bytes() == BODY


def test_a_server_that_never_answers_well_is_given_up(tmp_path, server, file):
    server.files["/a.pt"].statuses = [503] * 9

    with pytest.raises(DownloadFailed, match="it answers 503"):
        download(file, tmp_path, refuse, QUICK)

    assert len(server.asked) == QUICK.attempts


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_for_twice(tmp_path, server, file, status):
    server.files["/a.pt"].statuses = [status]

    with pytest.raises(DownloadFailed, match=f"answers {status}"):
        download(file, tmp_path, refuse, QUICK)

    assert len(server.asked) == 1


def test_nobody_at_the_address_is_said_with_the_address(tmp_path, file):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a.pt"

    with pytest.raises(DownloadFailed, match=url):
        download(AssetFile("a.pt", url, SHA256, len(BODY)), tmp_path, refuse, QUICK)


def test_a_file_whose_size_nobody_published_goes_on_as_well(tmp_path, server):
    server.files["/a.pt"].breaks = [200_000]

    download(AssetFile("a.pt", f"{server.url}/a.pt", SHA256, None), tmp_path, ignore, QUICK)

    assert (tmp_path / "a.pt").read_bytes() == BODY
    assert server.ranges() == [None, "bytes=200000-"]


# -- wrong contents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [True, False], ids=["said", "not said"])
@pytest.mark.parametrize(
    "body",
    [BODY[:-1] + b"\0", BODY + b"\0", BODY[:-1], b"<html>please sign in</html>"],
    ids=["tampered", "longer", "shorter", "a page"],
)
def test_what_is_not_the_published_file_is_refused_and_nothing_has_its_name(tmp_path, server, file, body, lengths):
    server.files["/a.pt"] = Behaviour(body, lengths=lengths, etag="")

    with pytest.raises(AssetError):
        download(file, tmp_path, ignore, QUICK)

    assert not file.under(tmp_path).exists()


@pytest.mark.parametrize("size", [len(BODY), None])
def test_of_a_tampered_file_nothing_is_kept_and_both_checksums_are_said(tmp_path, server, size):
    server.files["/a.pt"].body = wrong = b"!" + BODY[1:]

    with pytest.raises(WrongContents, match=f"{hashlib.sha256(wrong).hexdigest()}.*{SHA256}"):
        download(AssetFile("a.pt", f"{server.url}/a.pt", SHA256, size), tmp_path, ignore, QUICK)

    assert left(tmp_path) == set()


def test_a_part_that_was_tampered_with_between_two_runs_is_seen(tmp_path, server, file):
    server.files["/a.pt"].breaks = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        download(file, tmp_path, ignore, QUICK)
    part = Draft(file, tmp_path).part
    part.write_bytes(b"!" + part.read_bytes()[1:])

    with pytest.raises(WrongContents):
        download(file, tmp_path, ignore, QUICK)

    assert left(tmp_path) == set()


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_room_is_looked_for_when_only_the_server_knows_the_size(tmp_path):
    with pytest.raises(NoRoom, match="another folder with --into"):
        check_room(tmp_path, 10**18)
    check_room(tmp_path, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_all_the_same_is_said(tmp_path, file):
    draft = Draft(file, tmp_path)
    draft.begin("")
    draft.part.symlink_to("/dev/full")

    with pytest.raises(NoRoom, match="what came so far is kept"):
        draft.write(iter([BODY]), ignore)
