"""Are content features good: do they find the same phone at other speakers, and do they hide who speaks?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from libs.voice.content_network import ContentNetwork, level_of_speech
from libs.voice.content_small import FEATURE_SCALE, FINER_SCALE
from libs.voice.phones import SPEECH_FROM


class Labelled(Protocol):
    """A piece of speech of one speaker with its phones."""

    @property
    def mel(self) -> Tensor: ...

    @property
    def hard(self) -> Tensor: ...


def nearest_phone(features: list[Tensor], phones: list[Tensor]) -> float:
    """Share of speech frames whose nearest frame (Euclidean) of another speaker carries the same phone.

    `features[i]` is `[N, width]` of speaker i, `phones[i]` the class numbers `[N]`; speaker i is looked up in i + 1.
    """
    hits = total = 0
    for i, (own, said) in enumerate(zip(features, phones, strict=True)):
        other, other_said = features[(i + 1) % len(features)], phones[(i + 1) % len(phones)]
        speech = said >= SPEECH_FROM
        found = other_said[torch.cdist(own[speech], other).argmin(dim=1)]
        hits, total = hits + int((found == said[speech]).sum()), total + int(speech.sum())
    return hits / total


def speaker_told_apart(features: list[Tensor]) -> float:
    """Share of second halves of utterances whose mean is nearest to the mean of their own first half.

    `features[i]` is `[N, width]` of speaker i. Chance is 1 / speakers; lower is better: identity has not leaked.
    """
    firsts = torch.stack([own[: len(own) // 2].mean(dim=0) for own in features])
    seconds = torch.stack([own[len(own) // 2 :].mean(dim=0) for own in features])
    found = torch.cdist(seconds, firsts).argmin(dim=1)
    return float((found == torch.arange(len(features))).float().mean())


def probe(network: ContentNetwork, utterances: Sequence[Labelled]) -> dict[str, float]:
    """Both measures on posteriors, on their logarithms and on plain log-mel, for one utterance per speaker."""
    phones = [utterance.hard for utterance in utterances]
    kinds: dict[str, list[Tensor]] = {"posteriors": [], "log_posteriors": [], "log_mel": []}
    with torch.inference_mode():
        for utterance in utterances:
            mel = utterance.mel - level_of_speech(utterance.mel)
            logits = network(mel[None])[0].T[: len(utterance.hard)]
            kinds["posteriors"].append(logits.softmax(dim=1))
            kinds["log_posteriors"].append(logits.log_softmax(dim=1).clamp(min=-8.0))
            kinds["log_mel"].append(mel.T[::2][: len(utterance.hard)])
    measured = {}
    for kind, features in kinds.items():
        measured[f"nearest_phone_{kind}"] = nearest_phone(features, phones)
        measured[f"speaker_told_apart_{kind}"] = speaker_told_apart(features)
    return measured


def probe_features(network: ContentNetwork, utterances: Sequence[Labelled]) -> dict[str, float]:
    """Phone accuracy, and both measures on posteriors, finer features, and both together as the encoder gives them."""
    phones = [utterance.hard for utterance in utterances]
    classes = network.config.classes
    kinds: dict[str, list[Tensor]] = {"posteriors": [], "finer": [], "together": []}
    right = total = 0
    with torch.inference_mode():
        for utterance in utterances:
            out = network((utterance.mel - level_of_speech(utterance.mel))[None])[0].T[: len(utterance.hard)]
            speech = utterance.hard >= SPEECH_FROM
            hits = out[:, :classes].argmax(dim=1) == utterance.hard
            right, total = right + int((hits & speech).sum()), total + int(speech.sum())
            posteriors, finer = out[:, :classes].softmax(dim=1), out[:, classes:]
            kinds["posteriors"].append(posteriors)
            kinds["finer"].append(finer)
            kinds["together"].append(torch.cat((FEATURE_SCALE * posteriors, FINER_SCALE * finer), dim=1))
    measured = {"phone_accuracy": right / total}
    for kind, features in kinds.items():
        measured[f"nearest_phone_{kind}"] = nearest_phone(features, phones)
        measured[f"speaker_told_apart_{kind}"] = speaker_told_apart(features)
    return measured


class Articulated(Protocol):
    """A piece of speech in a voice of espeak-ng, with the articulation `[FEATURES, N]` (NaN where it is not known)."""

    @property
    def speaker(self) -> str: ...

    @property
    def mel(self) -> Tensor: ...

    @property
    def articulation(self) -> Tensor: ...


Kind = TypeVar("Kind", bound=Articulated)


def articulation_read(network: ContentNetwork, read: nn.Linear, pieces: Sequence[Articulated]) -> dict[str, float]:
    """See `articulation_found`, of what `read` tells from the finer features of `network`."""

    def tell(piece: Articulated) -> Tensor:
        found: Tensor = read(network((piece.mel - level_of_speech(piece.mel))[None])[0, network.config.classes :].T)
        return found

    return articulation_found(tell, pieces)


def articulation_found(tell: Callable[[Kind], Tensor], pieces: Sequence[Kind]) -> dict[str, float]:
    """Per language, the share of present articulatory features that are found, minus that of absent ones invented.

    `tell`: a piece → `[N, FEATURES]`, above 0 where a feature is thought to be present. 0 is chance, 1 is perfect
    (Youden's index); silence counts as a feature of its own.
    """
    counts: dict[str, Tensor] = {}
    with torch.inference_mode():
        for piece in pieces:
            told = tell(piece)
            frames = min(len(told), piece.articulation.shape[1])
            truth = piece.articulation[:, :frames].T
            known = ~truth.isnan().any(dim=1)
            found, present = (told[:frames] > 0)[known], truth[known] > 0.5
            tally = torch.stack([(found & present).sum(), present.sum(), (found & ~present).sum(), (~present).sum()])
            language = piece.speaker.split("+")[0]
            counts[language] = counts.get(language, torch.zeros(4)) + tally
    return {
        f"articulation_{language}": float(hit / present - invented / absent)
        for language, (hit, present, invented, absent) in counts.items()
    }
