"""Metrics have names that Prometheus expects, and labels that never grow without end."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import Counter as Tally
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from libs.common import disks, gpu, metrics
from libs.common.errors import WorkFailed
from libs.common.jobs import JobKind, Lane, Step
from libs.common.settings import CommonSettings

DECLARED = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
UNITS = ("_seconds", "_bytes", "_ratio", "_real_time_factor")


def test_every_metric_is_in_the_table_of_who_exports_it_once() -> None:
    listed = Tally(metric._name for group in metrics.EXPORTED.values() for metric in group)

    assert listed == Tally(metric._name for metric in DECLARED)
    assert set(listed.values()) == {1}


@pytest.mark.parametrize("metric", DECLARED, ids=lambda metric: metric._name)
def test_a_metric_is_named_as_prometheus_expects_and_says_what_it_is(metric: Counter | Gauge | Histogram) -> None:
    [family] = metric.describe()

    assert family.name.startswith("voicewright_")
    assert family.documentation[0].isupper() or family.documentation[0].isdigit()
    assert not family.documentation.endswith(".")
    if family.type == "histogram":
        assert family.name.endswith((*UNITS, "_requests"))


def test_every_label_says_which_few_values_it_takes() -> None:
    used = {label for metric in DECLARED for label in metric._labelnames}

    assert used == set(metrics.LABELS)
    assert named(metrics.LABELS["kind"].split(";")[0]) >= {kind.value for kind in JobKind}
    assert named(metrics.LABELS["step"]) >= {step.value for step in Step}
    assert named(metrics.LABELS["lane"]) == {lane.value for lane in Lane}


def named(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


def test_a_word_of_a_client_or_of_a_message_makes_no_new_series() -> None:
    assert metrics.method_label("GET") == "GET"
    assert metrics.method_label("X" * 500) == "other"
    assert metrics.code_label(WorkFailed.code) == WorkFailed.code
    assert metrics.code_label("made-up") == "other"
    assert metrics.code_label(None) == "other"
    assert metrics.code_label(["list"]) == "other"


def value(metric: Gauge, *labels: str) -> float:
    [sample] = metric.labels(*labels).collect()[0].samples
    return sample.value


def test_room_is_told_of_the_volume_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    settings = CommonSettings(service_token="0123456789abcdef", data_root=tmp_path / "not" / "yet")

    disks.watch(settings)

    usage = shutil.disk_usage(tmp_path)
    assert value(metrics.DISK_SIZE, "data") == usage.total
    assert 0 < value(metrics.DISK_FREE, "data") <= usage.total
    assert value(metrics.DISK_FREE, "models") > 0


def test_a_volume_that_does_not_answer_has_no_room_that_anybody_could_mistake(tmp_path: Path) -> None:
    settings = CommonSettings(service_token="0123456789abcdef", data_root=tmp_path / ("x" * 300))

    disks.watch(settings)

    assert math.isnan(value(metrics.DISK_FREE, "data"))


NVML = """
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } use_t;
static int cards[2] = {0, 1};
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { *h = &cards[i]; return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
    int i = *(int *)h; m->total = 16000000000ULL; m->used = 4000000000ULL * (i + 1);
    m->free = m->total - m->used; return 0; }
int nvmlDeviceGetUtilizationRates(void *h, use_t *u) {
    if (*(int *)h) return 3; /* NVML_ERROR_NOT_SUPPORTED */
    u->gpu = 87; u->memory = 12; return 0; }
"""


def driver(folder: Path, init: int) -> str:
    """A driver's library with the C interface of NVML; the second card does not tell its use."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to make a driver's library with")
    source, library = folder / "nvml.c", folder / f"libnvml{init}.so"
    source.write_text(NVML)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", "-o", library, source], check=True)
    return str(library)


def test_memory_and_use_of_every_card_are_asked_of_the_driver(tmp_path: Path) -> None:
    found = gpu.watch(driver(tmp_path, init=0))

    assert found == 2
    assert value(metrics.GPU_MEMORY, "0") == value(metrics.GPU_MEMORY, "1") == 16e9
    assert value(metrics.GPU_MEMORY_USED, "0") == 4e9
    assert value(metrics.GPU_MEMORY_USED, "1") == 8e9
    assert value(metrics.GPU_BUSY, "0") == pytest.approx(0.87)
    assert math.isnan(value(metrics.GPU_BUSY, "1"))
    for metric in (metrics.GPU_MEMORY, metrics.GPU_MEMORY_USED, metrics.GPU_BUSY):
        metric.clear()


def test_without_a_driver_or_with_one_that_refuses_there_are_no_figures_of_cards(tmp_path: Path) -> None:
    assert gpu.watch("libnvidia-ml-that-is-not-there.so.1") == 0
    assert gpu.watch(driver(tmp_path, init=9)) == 0

    assert not next(iter(metrics.GPU_MEMORY.collect())).samples
