"""How do the pods of a rendered overlay run on a Docker engine? All at once, as they are applied; nothing is left."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

from scripts.k8s_pods import Object, Objects, Pod, claims, options


class EngineError(Exception):
    """Docker or a container does not do what it was asked for; the text says what was seen."""


def docker(*arguments: str, seconds: float = 300) -> str:
    """One docker command; its output. Raises EngineError with its last words when it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise EngineError(f"docker {arguments[0]}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


class Engine:
    """Pods as containers in a network of their own, under names that begin with `project`."""

    def __init__(self, objects: Objects, project: str, folder: Path) -> None:
        self.objects = objects
        self.project = project
        self._folder = folder
        self._label = f"voicewright-k8s={project}"
        self.pods: dict[str, Pod] = {}

    def __enter__(self) -> Engine:
        docker("network", "create", "--label", self._label, self.project)
        return self

    def __exit__(self, *_: object) -> None:
        for kind in ("container", "volume", "network"):
            if found := self.left(kind):
                docker(kind, "rm", *(("--force", "--volumes") if kind == "container" else ()), *found)

    def left(self, kind: str) -> list[str]:
        """Containers, volumes or networks of this project that exist; `kind` is docker's word."""
        every = ("--all",) if kind == "container" else ()
        return docker(kind, "ls", "--quiet", *every, "--filter", f"label={self._label}").split()

    def make_volumes(self, pods: Iterable[Pod], image: str) -> None:
        """Volumes that belong to the group of their pods, as a cluster makes them."""
        for name, group in claims(pods, self.project).items():
            docker("volume", "create", "--label", self._label, name)
            own = f"chgrp {group} /volume && chmod 2775 /volume"
            docker("run", "--rm", "--user=0", f"--volume={name}:/volume", "--entrypoint=sh", image, "-c", own)

    def start(self, pod: Pod) -> None:
        """Starts the pod's containers; every container has the pod's name."""
        [container] = pod.spec["containers"]
        arguments = options(container, pod, self.objects, self.project, self._folder)
        docker("run", "--detach", f"--label={self._label}", f"--name={self.project}-{pod.name}", *arguments)
        self.pods[pod.name] = pod

    def stop(self, pod: Pod) -> None:
        """Asks it to go, waits as long as the pod may take, and removes it."""
        docker("stop", f"{self.project}-{pod.name}", seconds=pod.grace + 60)
        docker("rm", f"{self.project}-{pod.name}")
        del self.pods[pod.name]

    def state(self, pod: Pod) -> dict[str, Any]:
        """Docker's word on the pod's container."""
        found: dict[str, Any] = json.loads(docker("inspect", f"{self.project}-{pod.name}"))[0]
        return found

    def url(self, pod: Pod, port: str) -> str:
        """Where a named port of a pod answers."""
        [number] = [each["containerPort"] for each in pod.spec["containers"][0]["ports"] if each["name"] == port]
        return f"http://{self.state(pod)['NetworkSettings']['Networks'][self.project]['IPAddress']}:{number}"

    def inside(self, pod: Pod, script: str) -> str:
        """What a shell script says in the pod, its errors as well."""
        return docker("exec", f"{self.project}-{pod.name}", "sh", "-c", f"{{ {script}; }} 2>&1 || true").strip()

    def said(self, pod: Pod, lines: int = 40) -> str:
        """The end of the pod's log."""
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), f"{self.project}-{pod.name}"], capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def probed(self, pod: Pod, probe: str) -> bool:
        """Whether a pod answers one of its probes as the manifest asks."""
        container: Object = pod.spec["containers"][0]
        asked = container[probe]["httpGet"]
        try:
            answer = httpx.get(
                self.url(pod, asked["port"]) + asked["path"],
                timeout=container[probe].get("timeoutSeconds", 1),
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return answer.status_code < 400

    def ended(self, pod: Pod) -> int | None:
        """The exit status of a pod that is over, None while it runs."""
        state = self.state(pod)["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def wait(self, what: Callable[[], bool], seconds: float, say: str) -> None:
        """Returns once `what` is true; raises EngineError with `say` and what the pods said after `seconds`."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise EngineError(say)
            time.sleep(1)
