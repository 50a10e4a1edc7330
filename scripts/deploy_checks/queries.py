"""Do dashboards, alert rules and scalers ask for metrics and labels that the services export?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import REGISTRY

from libs.common import metrics

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# What Prometheus and Kubernetes' discovery add to every series.
TARGET = frozenset(
    {"job", "instance", "le", "namespace", "pod", "container", "service", "endpoint", "node", "quantile"}
)
# Prometheus' own: whether a target answered, and which alerts fire.
_OF_PROMETHEUS = {"up": TARGET, "ALERTS": TARGET | {"alertname", "alertstate", "severity"}}
_WITH_LABELS = ("by", "without", "on", "ignoring", "group_left", "group_right")
_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        sum min max avg count stddev group topk bottomk quantile count_values and or unless bool offset inf nan
        abs absent absent_over_time avg_over_time ceil changes clamp clamp_max clamp_min count_over_time day_of_week
        delta deriv exp floor histogram_quantile hour idelta increase irate label_join label_replace last_over_time ln
        log10 log2 max_over_time min_over_time minute month predict_linear present_over_time quantile_over_time rate
        resets round scalar sort sort_desc sqrt stddev_over_time sum_over_time time timestamp vector year
        """,
    )
)
# 0.5, 5e9, 10m, 1h30m
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?:(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)?\b")
_TOKEN = re.compile(r"[a-zA-Z_]\w*(?::\w+)*|[(){}]|[^\s(){}a-zA-Z_]+")


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands."""

    place: str
    text: str


def exported() -> dict[str, frozenset[str]]:
    """Each series that some service exports, with its labels."""
    found: dict[str, frozenset[str]] = {}
    for declared in metrics.EXPORTED.values():
        for metric in declared:
            [family] = metric.describe()
            for suffix in _SUFFIXES[family.type]:
                found[family.name + suffix] = frozenset(metric._labelnames)
    for family in REGISTRY.collect():
        if family.name.startswith(("process_", "python_")):
            for sample in family.samples:
                found[sample.name] = frozenset(sample.labels)
    return found


def plain(text: str) -> str:
    """An expression without Grafana's own variables."""
    text = re.sub(r"\$__(?:rate_)?interval(?:_ms)?|\$__range|\$\{__range\}", "5m", text)
    return re.sub(r"\$\{?\w+(?::\w+)?\}?", ".*", text)


def faults_of(text: str, known: dict[str, frozenset[str]]) -> list[str]:
    """The series, labels and words of one expression that nobody exports and Prometheus does not know."""
    series, asked, unknown = _words_of(plain(text))
    allowed = set(TARGET).union(*(known.get(name, frozenset()) for name in series))
    faults = [f"nobody exports {name}" for name in sorted(series - known.keys())]
    faults += [f"Prometheus has no {name}()" for name in sorted(unknown)]
    # Labels that label_replace and label_join make are known to nobody else.
    made = set(re.findall(r'label_(?:replace|join)\([^"]*"(\w+)"', text))
    if not series - known.keys():
        faults += [f"no series of it has the label {name}" for name in sorted(asked - allowed - made)]
    if not series:
        faults.append("it asks for no series")
    return faults


def _words_of(text: str) -> tuple[set[str], set[str], set[str]]:
    """The series, the labels and the unknown functions of an expression."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', '""', text)
    tokens = _TOKEN.findall(_NUMBER.sub(" ", bare))
    series: set[str] = set()
    labels: set[str] = set()
    unknown: set[str] = set()
    inside = ""
    for position, word in enumerate(tokens):
        after = tokens[position + 1] if position + 1 < len(tokens) else ""
        if inside:
            if word in ("}", ")"):
                inside = ""
            elif re.fullmatch(r"[a-zA-Z_]\w*", word):
                labels.add(word)
        elif word == "{":
            inside = "selector"
        elif re.match(r"[a-zA-Z_]", word):
            if word.lower() in _WITH_LABELS:
                inside = "labels" if after == "(" else ""
            elif after == "(" and word.lower() not in _WORDS:
                unknown.add(word)
            elif word.lower() not in _WORDS:
                series.add(word)
    return series, labels, unknown


def known_series(recorded: Iterable[str] = ()) -> dict[str, frozenset[str]]:
    """What may be asked for: the services' series, Prometheus' own, and what rules record (with any label)."""
    everything = exported() | dict(_OF_PROMETHEUS)
    labels = frozenset().union(*everything.values())
    return everything | dict.fromkeys(recorded, labels)
