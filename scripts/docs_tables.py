"""Do the tables in docs/ say what the code says? Writes them from the code; with `--check` only compares.

A generated part stands between `<!-- generated: name -->` and `<!-- end -->`; everything else is written by hand.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from packaging.requirements import Requirement
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from libs.common import events, metrics
from libs.common.jobs import Lane
from libs.common.settings import CommonSettings
from scripts.asset_manifest import read_manifest
from scripts.fetch_assets import megabytes
from scripts.stack import PROJECT, SERVICES

DOCS = PROJECT / "docs"
_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.S)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


# -- settings ---------------------------------------------------------------------------------------------------------


def settings_classes() -> dict[str, type[CommonSettings]]:
    """The settings class of each service."""
    found: dict[str, type[CommonSettings]] = {}
    for service in ("gateway", *(name for name in SERVICES if name != "gateway")):
        module = importlib.import_module(f"services.{service}.settings")
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, CommonSettings) and value.__module__ == module.__name__
        ]
        if len(own) != 1:
            raise SystemExit(f"services/{service}/settings.py must hold one settings class, found {own}")
        found[service] = own[0]
    return found


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.is_required() else "–"
    return _value(value)


def _value(value: Any) -> str:
    if value is None or value == "" or isinstance(value, SecretStr):
        return "–"
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, timedelta):
        return f"`{value.total_seconds():g}` s"
    if isinstance(value, ByteSize):
        return f"`{int(value)}` ({value.human_readable(decimal=True)})"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(_value(item) for item in value) or "–"
    return f"`{value}`"


def _kind(field: FieldInfo) -> str:
    names: set[str] = set()

    def walk(annotation: Any) -> None:
        inner = [argument for argument in get_args(annotation) if argument is not Ellipsis]
        if inner:
            for argument in inner:
                walk(argument)
        elif annotation is timedelta:
            names.add("seconds")
        elif annotation is ByteSize:
            names.add("bytes")
        elif annotation is SecretStr:
            names.add("secret")
        elif annotation is not type(None) and inspect.isclass(annotation):
            names.add(
                "one of " + ", ".join(annotation) if issubclass(annotation, Enum) else annotation.__name__.lower()
            )

    walk(field.annotation)
    return " or ".join(sorted(names)) or "text"


def settings_table(settings: type[CommonSettings], leave_out: set[str]) -> str:
    """One row per variable, without those in `leave_out`."""
    rows = [
        [f"`{name.upper()}`", _kind(field), _default(field), field.description or ""]
        for name, field in settings.model_fields.items()
        if name not in leave_out
    ]
    return table(["variable", "type", "default", "what it does"], rows)


def settings_tables() -> str:
    """The variables that all services share, then each service's own."""
    shared = set(CommonSettings.model_fields)
    parts = ["## All services\n\n" + settings_table(CommonSettings, set())]
    for service, settings in settings_classes().items():
        port = settings.model_fields["port"].default
        parts.append(f"## {service} (port {port})\n\n" + settings_table(settings, shared))
    return "\n".join(parts)


# -- messages ---------------------------------------------------------------------------------------------------------


def _fields(message: type[events.Data], base: type[events.Data]) -> str:
    return ", ".join(f"`{name}`" for name in message.model_fields if name not in base.model_fields)


def _says(message: type[events.Data]) -> str:
    """The message's own docstring; inherited ones say nothing about it."""
    return (message.__dict__.get("__doc__") or "").strip()


def events_tables() -> str:
    """Commands, events and progress messages with subjects and fields."""
    commands = [
        [f"`{m.__name__}`", f"`cmd.{m.service}.{m.verb}.<lane>`", _fields(m, events.Command), _says(m)]
        for m in _as(events.COMMANDS, events.Command)
    ]
    facts = [
        [f"`{m.__name__}`", f"`evt.{m.noun}.<id>.{m.fact}`", _fields(m, events.Event), _says(m)]
        for m in _as(events.EVENTS, events.Event)
    ]
    progress = [
        [f"`{m.__name__}`", "`prg.job.<id>`", _fields(m, events.Progress), _says(m)]
        for m in _as(events.PROGRESS, events.Progress)
    ]
    columns = ["message", "subject", "fields", ""]
    common = ", ".join(f"`{name}`" for name in events.Command.model_fields)
    return (
        f"## Commands\n\nAll carry {common}.\n\n{table(columns, commands)}\n"
        f"## Events\n\nAll carry `job_id`.\n\n{table(columns, facts)}\n"
        f"## Progress\n\nAll carry `job_id`.\n\n{table(columns, progress)}"
    )


def _as(found: list[type[events.Data]], base: type[Any]) -> list[type[Any]]:
    return [message for message in found if issubclass(message, base)]


# -- licences ---------------------------------------------------------------------------------------------------------

# The extras that deploy/Dockerfile installs.
LIGHT, VOICE = ("gateway", "ingest", "otel"), ("preprocessor", "trainer", "inference", "otel")
# They come with PyTorch's CUDA builds alone; the table is the same whichever build is installed.
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton$")


def _closure(extras: tuple[str, ...]) -> set[str]:
    """Every installed distribution that the extras of this project need, by normal name, without the project."""
    found: set[str] = set()
    waiting = [("voicewright", extra) for extra in extras] + [("voicewright", "")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name != "voicewright":
            found.add(name)
        for text in needs:
            need = Requirement(text)
            if need.marker is not None and not need.marker.evaluate({"extra": extra}):
                continue
            for inner in ("", *need.extras):
                step = (re.sub(r"[-_.]+", "-", need.name).lower(), inner)
                if step not in seen:
                    seen.add(step)
                    waiting.append(step)
    return found


def _licence(name: str) -> str:
    about: Any = metadata.metadata(name)
    stated = about.get("License-Expression") or ""
    if stated:
        return stated
    classifiers = [
        c.split(" :: ")[-1]
        for c in about.get_all("Classifier") or []
        if c.startswith("License :: ") and c.count("::") > 1
    ]
    stated = (about.get("License") or "").strip().splitlines()[0:1]
    text = ", ".join(classifiers) or (stated[0] if stated else "")
    return text if 0 < len(text) <= 80 else "see its own files"


def licences_table() -> str:
    """Every distribution that an image holds, its licence, and which images hold it."""
    light, voice, demo = _closure(LIGHT), _closure(VOICE), _closure(("all",))
    rows = [
        [
            f"{metadata.metadata(name)['Name']}",
            _licence(name),
            ", ".join(image for image, held in (("light", light), ("voice", voice)) if name in held) or "neither",
        ]
        for name in sorted(light | voice | demo)
        if not CUDA_ONLY.match(name)
    ]
    return table(["package", "licence, as the package states it", "in images"], rows)


# -- benchmarks -------------------------------------------------------------------------------------------------------


def newest_benchmark() -> Path:
    """The JSON of the last `make bench` that is kept: docs/benchmarks/<date>.json."""
    return max((DOCS / "benchmarks").glob("20[0-9][0-9]-[0-9][0-9]-[0-9][0-9].json"))


def _figures(found: dict[str, Any], before: str = "") -> list[list[str]]:
    rows = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += _figures(value, f"{before}{name}: ")
        else:
            rows.append([f"{before}{name}", str(value)])
    return rows


def benchmarks_table() -> str:
    """The figures of the newest measurement that is kept, and what they were measured on."""
    path = newest_benchmark()
    measured = json.loads(path.read_text(encoding="utf-8"))
    about = f"{measured['machine']}; speech: {measured['speech']}; load before: {measured['load_before']:.1f}"
    columns = table(["figure", ""], _figures(measured["figures"])).replace("| --- | --- |", "| --- | ---: |")
    return f"## {path.stem}\n\n{about}: [JSON](benchmarks/{path.name}).\n\n{columns}"


# -- simulation of the queue -------------------------------------------------------------------------------------------


def queue_table() -> str:
    """The figures of scripts/simulate_queue.py that are kept: waits in minutes, half and 95 of 100 of the commands."""
    rows = []
    for told in json.loads((DOCS / "benchmarks" / "queue-simulation.json").read_text(encoding="utf-8")):
        found = told["figures"]
        waits = [found[f"wait {lane}, min"] for lane in Lane]
        cells = [f"{wait['p50']:g} / {wait['p95']:g}" for wait in waits]
        longest = max(wait["longest"] for wait in waits)
        rows.append(
            [told["scenario"]["name"], str(found["jobs"]), *cells, f"{longest:g}", f"{found['work lost, %']:g} %"]
        )
    return table(["scenario", "jobs", "high", "normal", "low", "longest", "work lost"], rows)


# -- metrics ----------------------------------------------------------------------------------------------------------


def metrics_table() -> str:
    """Every metric with who exports it, its kind and labels, then what may stand in each label."""
    rows = []
    for who, declared in metrics.EXPORTED.items():
        for metric in declared:
            [family] = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append([f"`{name}`", who, family.type, labels or "–", family.documentation])
    values = [[f"`{label}`", said] for label, said in metrics.LABELS.items()]
    columns = ["metric", "exported by", "kind", "labels", ""]
    return f"{table(columns, rows)}\n{table(['label', 'what stands in it'], values)}"


# -- assets ------------------------------------------------------------------------------------------------------------


def assets_table() -> str:
    """Every set of `scripts/assets.json`, then every file with its checksum."""
    sets = read_manifest()
    uses = table(
        ["set", "size", "licence", "needed by", "without it", "with it"],
        [
            [f"`{s.name}`", megabytes(s.files), f"[{s.licence}]({s.licence_url})", s.needed_by, s.without, s.changes]
            for s in sets
        ],
    )
    files = [[f"`{f.path}`", str(f.size or "not published"), f"`{f.sha256}`"] for s in sets for f in s.files]
    return f"{uses}\n{table(['file', 'bytes', 'SHA-256'], files)}"


# -- the files --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_tables,
    "events": events_tables,
    "licences": licences_table,
    "benchmarks": benchmarks_table,
    "assets": assets_table,
    "metrics": metrics_table,
    "queue": queue_table,
}


def renewed(text: str) -> str:
    """`text` with every generated part made anew. Raises KeyError for a part that nothing generates."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part['name']]()}{part[3]}", text)


def alert_rules() -> str:
    """The object of the cluster with the alerts of deploy/monitoring, which kustomize cannot read from there."""
    _, groups = (PROJECT / "deploy" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8").split("groups:\n")
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return (
        "# Made by `make docs` from deploy/monitoring/alerts.yaml: change it there.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: voicewright\n"
        f"spec:\n  groups:\n{indented}"
    )


def outdated(folder: Path = DOCS) -> dict[Path, str]:
    """The documents whose generated parts differ from the code, and what they should be."""
    documents = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    found = {path: new for path, text in documents.items() if (new := renewed(text)) != text}
    rules = PROJECT / "deploy" / "k8s" / "components" / "monitoring" / "rules.yaml"
    if not rules.is_file() or rules.read_text(encoding="utf-8") != alert_rules():
        found[rules] = alert_rules()
    return found


def main() -> None:
    found = outdated()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"{path.relative_to(PROJECT)} is older than the code: run `make docs`", file=sys.stderr)
        raise SystemExit(1 if found else 0)
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
        print(f"renewed {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
