"""Are Google and OpenAI asked as their APIs say, and do their refusals become problems that help?"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from libs.common.cloud.google import STATEMENTS, GoogleVoices
from libs.common.cloud.openai import OpenAIVoices
from libs.common.errors import PlatformError, ProviderFailed, ProviderRefused, ProviderUnavailable
from libs.common.providers import GOOGLE_LANGUAGES, OPENAI_LANGUAGES
from tests.cloud_servers import GOOGLE_KEY, OPENAI_KEY, Answer, CloudServer, cloud_server, tone


@pytest.fixture(scope="module")
def one_server() -> Iterator[CloudServer]:
    with cloud_server() as server:
        yield server


@pytest.fixture
def server(one_server: CloudServer) -> CloudServer:
    one_server.asked.clear()
    one_server.next.clear()
    return one_server


def google(server: CloudServer, key: str = GOOGLE_KEY, timeout: float = 20.0) -> GoogleVoices:
    return GoogleVoices(api_key=key, project="ours", url=server.url, timeout=timeout)


def openai(server: CloudServer) -> OpenAIVoices:
    return OpenAIVoices(api_key=OPENAI_KEY, url=f"{server.url}/v1")


async def test_google_makes_a_key_of_reference_consent_and_statement_and_speaks_with_it(server: CloudServer) -> None:
    reference, consent = tone(9.0), tone(4.0)

    key = await google(server).make_key(reference, consent, "de-DE")
    sound = await google(server).speak("Guten Tag.", key, "de-DE")

    made, spoken = server.asked
    assert key == "key-of-de-DE"
    assert base64.b64decode(made.fields["reference_audio"]["content"]) == reference
    assert base64.b64decode(made.fields["voice_talent_consent"]["content"]) == consent
    assert made.fields["consent_script"] == STATEMENTS["de-DE"]
    assert (made.headers["x-goog-api-key"], made.headers["x-goog-user-project"]) == (GOOGLE_KEY, "ours")
    assert spoken.fields["input"] == {"text": "Guten Tag."}
    assert sound == server.spoken


async def test_openai_takes_the_consent_first_and_a_voice_of_it_speaks(server: CloudServer) -> None:
    voices = openai(server)

    consent = await voices.upload_consent(tone(4.0), "Anna", "en")
    voice = await voices.make_voice(tone(20.0), "Anna", consent)
    sound = await voices.speak("Good day.", voice)

    assert server.paths() == ["/v1/audio/voice_consents", "/v1/audio/voices", "/v1/audio/speech"]
    assert server.asked[0].fields == {"name": "Anna", "language": "en"}
    assert server.asked[0].files == {"recording": tone(4.0)}
    assert (voice, sound) == ("voice_1", server.spoken)


async def test_a_token_in_a_file_is_read_anew_for_each_request(server: CloudServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    voices = GoogleVoices(token_file=token, url=server.url)
    with pytest.raises(ProviderUnavailable, match="GOOGLE_TTS_TOKEN_FILE"):
        await voices.speak("a", "key-of-x", "en-US")
    token.write_text("stale\n")
    with pytest.raises(ProviderUnavailable, match="401"):
        await voices.speak("a", "key-of-x", "en-US")
    token.write_text("fresh\n")

    assert await voices.speak("a", "key-of-x", "en-US") == server.spoken


@pytest.mark.parametrize(
    ("answer", "kind", "said", "retry_after"),
    [
        (Answer(401), ProviderUnavailable, "does not accept the key", None),
        (Answer(403, b'{"error": {"message": "not on the allow list"}}'), ProviderUnavailable, "allow list", None),
        (Answer(400, b'{"error": {"message": "Audio\\u0000 too\\n long"}}'), ProviderRefused, "too long", None),
        (Answer(400, b"<html>"), ProviderRefused, "400", None),
        (Answer(429, headers={"Retry-After": "30"}), ProviderFailed, "429", 30.0),
        (Answer(429, headers={"Retry-After": "9e9"}), ProviderFailed, "429", 3600.0),
        (Answer(429, headers={"Retry-After": "soon"}), ProviderFailed, "429", None),
        (Answer(503, b'{"error": "overloaded"}', {"Retry-After": "-4"}), ProviderFailed, "overloaded", 0.0),
        (Answer(500), ProviderFailed, "500", None),
        (Answer(302, headers={"Location": "http://127.0.0.1:9/"}), ProviderFailed, "redirect", None),
        (Answer(200, b"not json"), ProviderFailed, "no JSON object", None),
        (Answer(200, b'{"voiceCloningKey": ""}'), ProviderFailed, "voiceCloningKey", None),
    ],
)
async def test_every_refusal_becomes_a_problem_that_says_what_to_do(
    server: CloudServer, answer: Answer, kind: type[PlatformError], said: str, retry_after: float | None
) -> None:
    server.next.append(answer)

    with pytest.raises(kind) as caught:
        await google(server).make_key(tone(), tone(), "en-US")

    problem = caught.value.problem()
    assert type(caught.value) is kind
    assert said in problem["detail"]
    assert problem.get("retry_after") == retry_after
    assert problem["retryable"] is (kind is ProviderFailed)
    assert GOOGLE_KEY not in str(problem)
    assert len(server.asked) == 1


async def test_a_date_in_retry_after_counts_from_now(server: CloudServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10))
    server.next.append(Answer(429, headers={"Retry-After": later}))

    with pytest.raises(ProviderFailed) as caught:
        await openai(server).speak("a", "voice_1")

    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 600


async def test_a_service_that_does_not_answer_and_one_that_is_not_there_can_be_asked_again(server: CloudServer) -> None:
    server.next.append(Answer(200, after=60.0))
    with pytest.raises(ProviderFailed, match=r"within 0\.2 s"):
        await google(server, timeout=0.2).speak("a", "key-of-x", "en-US")

    with pytest.raises(ProviderFailed, match="cannot be reached"):
        await OpenAIVoices(api_key=OPENAI_KEY, url="http://127.0.0.1:9").speak("a", "voice_1")


async def test_sound_that_is_no_base64_is_not_taken_for_sound(server: CloudServer) -> None:
    server.next.append(Answer(200, b'{"audioContent": "%%%"}'))

    with pytest.raises(ProviderFailed, match="base64"):
        await google(server).speak("a", "key-of-x", "en-US")


def test_there_is_a_consent_statement_for_every_language_of_the_catalogue() -> None:
    from libs.common.cloud import openai as openai_api

    assert set(STATEMENTS) == set(GOOGLE_LANGUAGES)
    assert set(openai_api.STATEMENTS) == set(OPENAI_LANGUAGES)
