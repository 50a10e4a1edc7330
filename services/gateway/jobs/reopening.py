"""Which finished steps of a failed job have to be done again? Those whose results are not there any more.

This is a quick look, by names and sizes. A damage that only reading finds is found by the worker that reads: it fails
with StepResultLost, which names the step, and the worker of that step compares every checksum before it says "done".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.common import manifests
from libs.common.errors import StepResultLost
from libs.common.events import ManifestRef
from libs.common.jobs import Step
from libs.common.paths import Paths


def lost(paths: Paths, made: Mapping[Step, ManifestRef], problem: Mapping[str, Any] | None) -> frozenset[Step]:
    """The steps among `made` to be done again; `problem` is why the job failed. Blocking: it looks at every file."""
    named = str(problem.get("step", "")) if problem and problem.get("code") == StepResultLost.code else ""
    if not paths.data_root.is_dir():
        return frozenset(step for step in made if step.value == named)
    return frozenset(
        step for step, reference in made.items() if step.value == named or not manifests.seems_whole(paths, reference)
    )
