"""How sure are the figures of `scripts/quality.py`? Means over recordings with their intervals, table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = dict[str, list[dict[str, Any]]]
SHOWN = {
    "similarity_target": "similarity to target",
    "similarity_source": "to source",
    "f0_correlation": "F0 correlation",
    "f0_rmse_cents": "F0 RMSE, cents",
    "voicing_error": "voicing error",
    "phone_agreement": "phone agreement",
    "dnsmos": "DNSMOS",
}
PICTURED = ("similarity_target", "similarity_source", "f0_correlation", "phone_agreement", "dnsmos")
RANGES = {"dnsmos": (1.0, 5.0)}
"""Of the figures that are not between 0 and 1."""

DRAWS = 2000


def interval(values: Sequence[float], speakers: Sequence[str]) -> float:
    """Half of the 95 % interval of the mean of `values`, each of the speaker beside it.

    Bootstrap over speakers and then over their recordings (2,000 draws, the same ones each time): recordings of one
    speaker are more alike than chance would have them. With a single speaker only the recordings are drawn.
    """
    chance = np.random.default_rng(0)
    groups = [[v for v, s in zip(values, speakers, strict=True) if s == who] for who in sorted(set(speakers))]
    sizes = np.array([len(group) for group in groups])
    padded = np.zeros((len(groups), sizes.max()))
    for line, group in zip(padded, groups, strict=True):
        line[: len(group)] = group
    chosen = chance.integers(len(groups), size=(DRAWS, len(groups)))[:, :, None]
    drawn = padded[chosen, (chance.random((*chosen.shape[:2], sizes.max())) * sizes[chosen]).astype(int)]
    counted = np.arange(sizes.max()) < sizes[chosen]
    means = (drawn * counted).sum(axis=(1, 2)) / counted.sum(axis=(1, 2))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(high - low) / 2


def means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of every number that is there: its mean over the rows, and in `plus_minus` half of the 95 % interval."""
    found: dict[str, Any] = {"recordings": len(rows)}
    spread: dict[str, float] = {}
    for name in rows[0]:
        there = [row for row in rows if isinstance(row[name], float)]
        if there:
            values = [row[name] for row in there]
            found[name] = round(float(np.mean(values)), 4)
            spread[name] = round(interval(values, [row["speaker"] for row in there]), 4)
    return found | {"plus_minus": spread}


def differences(rows: Rows, kind: str, other: str) -> dict[str, Any]:
    """`other` less `kind`, recording by recording: mean and half of the 95 % interval of each shown figure."""
    before = {row["recording"]: row for row in rows[kind]}
    pairs = [(before[row["recording"]], row) for row in rows[other] if row["recording"] in before]
    lines = [
        {"recording": one["recording"], "speaker": one["speaker"]}
        | {name: two[name] - one[name] for name in SHOWN if None not in (one.get(name), two.get(name))}
        for one, two in pairs
    ]
    every: set[str] = set().union(*lines)
    return means([{name: line.get(name) for name in sorted(every)} for line in lines])


def bands(embedded: dict[str, list[NDArray[np.float32]]]) -> dict[str, float]:
    """How alike recordings of one speaker are, and of two: mean and deviation of the cosine over all pairs.

    `embedded`: unit vectors of the recordings of each speaker.
    """
    same, other = [], []
    speakers = sorted(embedded)
    for i, one in enumerate(speakers):
        vectors = embedded[one]
        same += [float(a @ b) for k, a in enumerate(vectors) for b in vectors[:k]]
        other += [float(a @ b) for two in speakers[:i] for a in vectors for b in embedded[two]]
    return {
        "same_speaker": round(float(np.mean(same)), 4),
        "same_speaker_deviation": round(float(np.std(same)), 4),
        "other_speaker": round(float(np.mean(other)), 4),
        "other_speaker_deviation": round(float(np.std(other)), 4),
    }


def table(summary: dict[str, dict[str, Any]], not_measured: dict[str, str] | None = None) -> str:
    """The rows as Markdown, each figure with its interval; below them why a figure of `not_measured` is in no row."""
    lines = [f"| | recordings | {' | '.join(SHOWN.values())} |", "|---" * (len(SHOWN) + 2) + "|"]
    for kind, found in summary.items():
        cells = [_cell(found, name) for name in SHOWN]
        lines.append(f"| {kind} | {found['recordings']} | {' | '.join(cells)} |")
    for name, reason in (not_measured or {}).items():
        lines += ["", f"{SHOWN[name]} was not measured: {reason}."]
    return "\n".join(lines)


def _cell(found: dict[str, Any], name: str) -> str:
    if name not in found:
        return "–"
    digits = 0 if name.endswith("cents") else 3
    return f"{found[name]:.{digits}f} ± {found['plus_minus'][name]:.{digits}f}"


def picture(summary: dict[str, dict[str, Any]], target: Path) -> None:
    """The rows as bars with their intervals, a panel for each of five figures, into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = list(reversed(summary))
    figure, panels = plt.subplots(1, len(PICTURED), figsize=(19, 1.5 + 0.35 * len(kinds)), sharey=True)
    for panel, name in zip(panels, PICTURED, strict=True):
        places = [i for i, kind in enumerate(kinds) if name in summary[kind]]
        found = [summary[kinds[i]] for i in places]
        spread = [each["plus_minus"][name] for each in found]
        panel.barh(places, [each[name] for each in found], xerr=spread, color="#4c78a8", ecolor="#222222", capsize=2)
        panel.set_title(SHOWN[name] if places else f"{SHOWN[name]}: not measured")
        panel.set_xlim(*RANGES.get(name, (0.0, 1.0)))
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(kinds)), kinds)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    plt.close(figure)
