"""Does the client repeat, renew and resume as it should, and only then?"""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.client.api import Client
from libs.client.errors import ApiProblem, JobEnded, NotReachable, SignInNeeded
from libs.client.feed import parse
from libs.client.models import Tokens
from scripts.processes import free_port
from tests.unit.client.stand_in_gateway import Gateway, frame


@pytest.fixture
def client(gateway: Gateway):
    with Client(gateway.url, "good", "again", pause=0.01) as made:
        yield made


def test_signing_in_gives_later_calls_their_token(gateway):
    with Client(gateway.url) as client:
        client.login("anna@example.com", "right")

        assert client.me().email == "anna@example.com"


def test_a_wrong_password_says_so(gateway):
    with Client(gateway.url) as client, pytest.raises(SignInNeeded, match="e-mail or password is wrong"):
        client.login("anna@example.com", "wrong")


def test_an_expired_token_is_renewed_once_and_the_new_one_told(gateway):
    told: list[Tokens] = []
    with Client(gateway.url, "expired", "again", on_tokens=told.append) as client:
        me = client.me()

    assert me.id == "usr_1"
    assert [tokens.refresh_token for tokens in told] == ["next"]


def test_an_expired_session_is_not_retried_for_ever(gateway):
    with Client(gateway.url, "expired", "used up") as client, pytest.raises(SignInNeeded):
        client.me()

    assert [route for _, route, _ in gateway.seen] == ["/auth/me", "/auth/refresh"]


def test_a_creating_request_is_repeated_under_one_key_while_a_part_is_away(gateway, client):
    gateway.unavailable = 2

    dataset = client.create_dataset("Anna")

    assert dataset.slug == "anna"
    assert len(gateway.datasets) == 1
    assert list(gateway.keys.values()) == [1]


def test_a_request_without_a_key_that_changes_something_is_sent_once(gateway, client):
    job = client.add_training_job("anna")
    gateway.unavailable = 1

    with pytest.raises(ApiProblem, match="A part is away"):
        client.cancel(job)


def test_repeating_ends_and_the_problem_is_told(gateway, client):
    gateway.unavailable = 100

    with pytest.raises(ApiProblem) as caught:
        client.datasets()

    assert caught.value.status == 503
    assert str(caught.value) == "A part is away: the broker. Try again."
    assert gateway.unavailable == 96


def test_an_address_where_nobody_answers_is_named_with_what_to_check():
    with (
        Client(f"http://127.0.0.1:{free_port()}", attempts=2, pause=0.01) as client,
        pytest.raises(NotReachable, match="Is the platform running"),
    ):
        client.me()


def test_an_answer_that_is_no_problem_document_is_still_told(gateway, client):
    with pytest.raises(ApiProblem) as caught:
        client.connection.request("GET", "/no-such-route")

    assert caught.value.status == 404


def test_all_pages_of_a_list_are_read_and_no_more_than_asked_for(gateway, client):
    gateway.users = [{"id": f"usr_{n}", "email": f"{n}@example.com"} for n in range(5)]
    for n in range(5):
        gateway.job(id=f"job_{n}")

    assert [user.id for user in client.users()] == [f"usr_{n}" for n in range(5)]
    assert len(client.jobs(limit=3)) == 3


def test_a_dataset_is_found_by_id_slug_and_name_before_one_is_made(gateway, client):
    made = client.ensure_dataset("Anna")

    assert client.ensure_dataset("Anna") == client.ensure_dataset("anna") == client.ensure_dataset(made.id) == made
    assert len(gateway.datasets) == 1


def test_an_administrators_names_mean_their_own_datasets(gateway, client):
    theirs = {"id": "dst_theirs", "slug": "anna-7k2q", "name": "Anna", "user_id": "usr_2"}
    gateway.datasets.append(theirs)
    gateway.datasets.append({"id": "dst_other", "slug": "ben", "name": "Ben", "user_id": "usr_2"})

    assert client.find_dataset("Anna") is None
    mine = client.ensure_dataset("Anna")
    bens = client.ensure_dataset("ben")

    assert (mine.user_id, bens.user_id) == ("usr_1", "usr_1")
    assert client.find_dataset("Anna") == mine
    assert client.find_dataset("anna-7k2q").id == client.ensure_dataset("dst_theirs").id == "dst_theirs"


def test_an_upload_is_whole_after_a_repeat_and_tells_how_much_was_sent(gateway, client, tmp_path):
    client.create_dataset("Anna")
    (tmp_path / "a.wav").write_bytes(b"x" * 200_000)
    gateway.unavailable = 1
    sent: list[int] = []

    answer = client.upload([tmp_path / "a.wav"], "dst_0", told=sent.append)

    assert [sample.name for sample in answer.samples] == ["a.wav"]
    assert sum(sent) == 400_000  # once for each time


def test_whose_a_recording_is_is_sent_with_it_and_corrected(gateway, client, tmp_path):
    client.create_dataset("Anna")
    (tmp_path / "a.wav").write_bytes(b"x")

    client.upload([tmp_path / "a.wav"], "dst_0")
    client.upload([tmp_path / "a.wav"], "dst_0", speaker_id=0)
    client.upload([tmp_path / "a.wav"], "dst_0", speaker_id=108)
    changed = client.change_sample("smp_1", speaker_id=3)
    client.change_sample("smp_1", transcript="Hello.")

    assert gateway.speakers == ["0", "108"]
    assert changed.speaker_id == 3
    assert [body for method, _, body in gateway.seen if method == "PATCH"] == [
        {"speaker_id": 3},
        {"transcript": "Hello."},
    ]


def test_a_feed_that_breaks_is_resumed_without_gap_or_doubling(gateway, client):
    job = client.add_training_job("anna")
    gateway.jobs["job_1"]["status"] = "completed"
    gateway.feed = [
        [
            b"retry: 1000\n\n",
            frame(4, "snapshot", {"job": job.model_dump(mode="json")}),
            frame(5, "progress", {"done": 1}),
        ],
        [b": still here\n\n"],
        [frame(5, "progress", {"done": 1}), frame(6, "progress", {"done": 2}), b"id: 7\nevent: pro"],
        [frame(7, "progress", {"done": 3}), frame(8, "state", {"state": "completed", "status": "completed"})],
    ]
    seen: list[tuple[int, str]] = []

    done = client.wait(job, told=lambda event: seen.append((event.id, event.kind)))

    assert seen == [(4, "snapshot"), (5, "progress"), (6, "progress"), (7, "progress"), (8, "state")]
    assert gateway.feed_asked == [None, "5", "5", "6"]
    assert done.status == "completed"


def test_a_feed_of_a_job_that_is_over_ends_with_its_snapshot(gateway, client):
    job = client.add_training_job("anna")
    over = gateway.job(status="failed", error={"title": "Training diverged", "detail": "loss is NaN"})
    gateway.feed = [[frame(9, "snapshot", {"job": over})]]

    with pytest.raises(JobEnded, match=r"Job job_1 failed\. Training diverged: loss is NaN"):
        client.wait(job)


def test_a_feed_survives_an_expired_token_and_an_unavailable_gateway(gateway):
    gateway.job(status="completed")
    gateway.unavailable = 2
    gateway.feed = [[frame(1, "state", {"status": "completed"})]]
    with Client(gateway.url, "expired", "again", pause=0.01, attempts=4) as client:
        job = client.job("job_1")
        client.connection.token = "expired"
        client.connection.refresh_token = "next"

        events = list(client.follow(job))

    assert [event.id for event in events] == [1]


def test_a_silent_feed_is_given_up_after_its_patience(gateway, client):
    job = client.add_training_job("anna")
    gateway.feed = []

    with pytest.raises(NotReachable, match="the job goes on"):
        list(client.follow(job, patience=0.5))


def test_event_streams_are_parsed_as_the_standard_says():
    text = (
        'id:1\nevent: a\ndata: {"x":\ndata: 2}\n\n: comment\n\nid: seven\ndata: {}\n\nid: 2\nevent: b\n\ndata: {}\n\n'
    )

    events = list(parse(iter(text.split("\n"))))

    assert [(event.id, event.kind, event.data) for event in events] == [(1, "a", {"x": 2}), (2, "message", {})]


def test_a_job_of_either_kind_is_found_by_its_id_alone(gateway, client):
    gateway.job(id="job_p", kind="preprocess")

    assert client.job("job_p").kind == "preprocess"
    with pytest.raises(ApiProblem):
        client.job("job_x")


def test_a_refused_conversion_leaves_no_file(gateway, client, tmp_path: Path):
    (tmp_path / "in.wav").write_bytes(b"silence")

    with pytest.raises(ApiProblem, match="no sound"):
        client.convert(tmp_path / "in.wav", "anna", tmp_path / "out.wav")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav"]


def test_a_conversion_keeps_what_the_answer_says_about_it(gateway, client, tmp_path: Path):
    (tmp_path / "in.wav").write_bytes(b"speech")

    made = client.convert(tmp_path / "in.wav", "anna", tmp_path / "out.wav", pitch_shift=3)

    assert (tmp_path / "out.wav").read_bytes().startswith(b"RIFF")
    assert (made.duration_seconds, made.real_time_factor, made.voice_version) == (1.5, 0.05, "job_1")
