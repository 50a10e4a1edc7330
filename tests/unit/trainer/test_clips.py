"""On which clips a voice is tried: held-out ones of each of its speakers."""

from __future__ import annotations

from services.trainer.clips import CLIPS, SpeakersClips, chosen

FOLDER = "experiments/anna/attempt/1_16k_wavs"


def files(*names: str) -> list[str]:
    return [f"{FOLDER}/{name}.wav" for name in names] + ["experiments/anna/attempt/0_gt_wavs/0_0.wav"]


def recordings(*speakers: int) -> list[dict[str, int]]:
    """As a manifest has them: a speaker only where it is not 0."""
    return [{"index": n} | ({"speaker": speaker} if speaker else {}) for n, speaker in enumerate(speakers)]


def test_one_speaker_is_tried_on_what_was_held_out_and_compared_with_the_rest() -> None:
    result = {"split": {"held_out_sources": ["1"]}}

    found = chosen(files("0_0", "0_1", "1_0", "10_0"), result, [])

    assert found == [
        SpeakersClips(0, (f"{FOLDER}/1_0.wav",), (f"{FOLDER}/0_0.wav", f"{FOLDER}/0_1.wav", f"{FOLDER}/10_0.wav"))
    ]


def test_each_speaker_has_clips_of_their_own_even_where_none_were_held_out() -> None:
    result = {"split": {"held_out_sources": ["1", "3"]}, "speakers": [0, 2, 5]}

    found = chosen(files("0_0", "1_0", "2_0", "3_0", "3_1", "4_0"), result, recordings(0, 0, 2, 2, 5))

    assert [each.speaker for each in found] == [0, 2, 5]
    assert [each.tried for each in found] == [
        (f"{FOLDER}/1_0.wav",),
        (f"{FOLDER}/3_0.wav", f"{FOLDER}/3_1.wav"),
        (f"{FOLDER}/4_0.wav",),
    ]
    assert found[1].others == (f"{FOLDER}/2_0.wav",)


def test_no_more_clips_are_looked_at_than_for_one_speaker() -> None:
    names = [f"{i}_0" for i in range(200)]
    split = {"held_out_sources": [str(i) for i in range(100)]}

    one = chosen(files(*names), {"split": split}, [])
    two = chosen(files(*names), {"split": split, "speakers": [0, 1]}, recordings(*(i % 2 for i in range(200))))

    assert len(one[0].tried) == CLIPS
    assert [len(each.tried) for each in two] == [CLIPS // 2] * 2
