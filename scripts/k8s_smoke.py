"""`scripts/k8s-smoke`: do the pods of deploy/k8s work as they are written?

The overlay `local` is rendered with components/keda once more: first its Deployments take the journey, then the same
without trainer and preprocessor, whose pods of one command are started by the lag of the queues, as KEDA counts it
from the broker's monitoring page.

What belongs to a cluster is not tried: network policies, scheduling, volumes of many nodes, Ingress, certificates.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import yaml

from libs.client.api import Client
from libs.client.errors import ClientError
from libs.client.models import Job
from libs.common.jobs import Lane
from scripts import smoke_journey
from scripts.compose_smoke import Report
from scripts.containers import given_outside, has_engine
from scripts.k8s_engine import Engine, EngineError, docker
from scripts.k8s_pods import Objects, Pod
from scripts.k8s_secrets import ensured, secret_objects
from scripts.smoke_journey import SmokeError, Sounds, must
from scripts.stack import PROJECT

OVERLAY = PROJECT / "deploy" / "k8s" / "overlays" / "local"
KEDA = PROJECT / "deploy" / "k8s" / "components" / "keda"
SCALED = ("preprocessor", "trainer")
CACHES = ("$HOME", "$NUMBA_CACHE_DIR", "$MPLCONFIGDIR", "${TORCH_HOME:-$HOME/.cache/torch}")
IMAGES = {"voicewright-light": "light", "voicewright-voice": "voice"}


def render(folder: Path) -> tuple[dict[str, object], ...]:
    """The objects of an overlay."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120)
    must(done.returncode == 0, f"kubectl kustomize: {done.stderr}")
    return tuple(yaml.safe_load_all(done.stdout))


def render_scaled(folder: Path) -> tuple[dict[str, object], ...]:
    """The local overlay with KEDA's component."""
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "voicewright",
                "resources": [os.path.relpath(OVERLAY, folder)],
                "components": [os.path.relpath(KEDA, folder)],
            }
        )
    )
    return render(folder)


def build(say: Report) -> None:
    """The images under the names that the manifests have."""
    tags = {
        str(image["name"]): str(image["newTag"])
        for image in yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())["images"]
    }
    for image, target in IMAGES.items():
        given = {name: value for name, value in given_outside().items() if name != "NATS_IMAGE"}
        arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
        tag = f"{image}:{tags[image]}"
        docker(
            "build",
            "--file",
            str(PROJECT / "deploy" / "Dockerfile"),
            "--target",
            target,
            "--tag",
            tag,
            *arguments,
            str(PROJECT),
            seconds=3600,
        )
    say(f"images built: {', '.join(f'{image}:{tag}' for image, tag in tags.items())}")


def come_up(engine: Engine, say: Report) -> None:
    """Starts everything at once, as it is applied, and waits until the Job is done and every pod is ready."""
    pods = engine.objects.pods()
    engine.make_volumes(pods, next(p.spec["containers"][0]["image"] for p in pods if p.workload == "migrate"))
    for pod in pods:
        engine.start(pod)
    for pod in pods:
        if pod.kind == "Job":
            engine.wait(lambda pod=pod: engine.ended(pod) is not None, 120, f"{pod.name} does not end")  # type: ignore[misc]
            must(engine.ended(pod) == 0, f"{pod.name} failed: {engine.said(pod)}")
            continue
        engine.wait(lambda pod=pod: engine.probed(pod, "readinessProbe"), 240, f"{pod.name} is not ready")  # type: ignore[misc]
        must(engine.probed(pod, "livenessProbe"), f"{pod.name} is ready but does not live")
    say(f"{len(pods)} pods: {', '.join(pod.name for pod in pods)}; the migration is done, all others are ready")


def look_inside(engine: Engine, say: Report) -> None:
    """Who a pod is and where it can write."""
    for pod in [pod for pod in engine.pods.values() if pod.kind == "Deployment"]:
        user = pod.spec["securityContext"]["runAsUser"]
        must(engine.inside(pod, "id -u") == str(user), f"{pod.name} is not user {user}")
        must(engine.inside(pod, "grep CapEff /proc/1/status").split()[-1] == "0" * 16, f"{pod.name} has capabilities")
        must("Read-only" in engine.inside(pod, "touch /app/x"), f"{pod.name} can change its code")
        caches = " ".join(CACHES)
        writes = f"for d in {caches}; do mkdir -p $d && touch $d/x || exit 1; done && echo written"
        must(engine.inside(pod, writes) == "written", f"{pod.name} cannot write its caches")
        places = {
            mount["mountPath"]: mount.get("readOnly", False) for mount in pod.spec["containers"][0]["volumeMounts"]
        }
        for place, is_read_only in places.items():
            said = engine.inside(pod, f"touch {place}/.probe && rm {place}/.probe && echo written")
            must(("Read-only" in said) if is_read_only else said == "written", f"{pod.name}: {place}: {said}")
    say("each pod is user 10001 without capabilities, on a read-only root; caches and volumes are as the manifest says")


def lag(engine: Engine, service: str) -> int:
    """Commands of a service that wait or are in hand, read as KEDA's scaler reads them: from the consumer's leader."""
    found = 0
    for pod in [pod for pod in engine.pods.values() if pod.workload == "nats"]:
        page = httpx.get(
            f"{engine.url(pod, 'monitor')}/jsz?acc=VOICEWRIGHT&consumers=true&config=true", timeout=5, trust_env=False
        )
        for account in page.json().get("account_details", ()):
            for stream in account["stream_detail"]:
                for consumer in stream.get("consumer_detail", ()):
                    if (
                        consumer["name"] in {f"{service}-{lane}" for lane in Lane}
                        and consumer["cluster"]["leader"] == pod.name
                    ):
                        found += consumer["num_pending"] + consumer["num_ack_pending"]
    return found


def streams_are_kept_three_times(engine: Engine, say: Report) -> None:
    pod = next(pod for pod in engine.pods.values() if pod.workload == "nats")
    page = httpx.get(f"{engine.url(pod, 'monitor')}/jsz?streams=true&config=true", timeout=5, trust_env=False).json()
    kept = {s["name"]: s["config"]["num_replicas"] for a in page["account_details"] for s in a["stream_detail"]}
    must(set(kept.values()) == {3}, f"streams are kept so many times: {kept}")
    say(f"{len(kept)} streams and buckets are kept three times")


def signed_in(engine: Engine, secrets: dict[str, str]) -> Client:
    gateway = next(pod for pod in engine.pods.values() if pod.workload == "gateway")
    client = Client(engine.url(gateway, "http"))
    client.login(secrets["ADMIN_EMAIL"], secrets["ADMIN_PASSWORD"])
    return client


def journey(engine: Engine, secrets: dict[str, str], sounds: Sounds, say: Report) -> None:
    """Upload, train, convert; nobody restarted meanwhile."""
    with signed_in(engine, secrets) as client:
        job = smoke_journey.completed(client, smoke_journey.upload_and_train(client, sounds, "Anna", 20, say))
        say(f"voice trained: {job.total_steps} steps")
        smoke_journey.converted(client, "Anna", sounds, job.id, say)
    restarts = {pod.name: engine.state(pod)["RestartCount"] for pod in engine.pods.values()}
    say(f"restarts on the way: {({name: count for name, count in restarts.items() if count}) or 'none'}")


def scaled_journey(engine: Engine, scaled: Objects, secrets: dict[str, str], sounds: Sounds, say: Report) -> None:
    """The same with a pod for each command: as many as the lag, those that run taken off, as the ScaledJob says."""
    for pod in [pod for pod in engine.pods.values() if pod.workload in SCALED]:
        engine.stop(pod)
    jobs = {found["metadata"]["name"]: found for found in scaled.all("ScaledJob")}
    begun: dict[str, list[Pod]] = {name: [] for name in SCALED}
    with signed_in(engine, secrets) as client:
        job: Job = smoke_journey.upload_and_train(client, sounds, "Ben", 20, say)

        def scale() -> bool:
            for name in SCALED:
                running = sum(engine.ended(pod) is None for pod in begun[name])
                most = jobs[name]["spec"]["maxReplicaCount"]
                for _ in range(min(lag(engine, name), most) - running):
                    template = jobs[name]["spec"]["jobTargetRef"]["template"]
                    pod = scaled.pod(jobs[name], 100 + len(begun[name]), template)
                    engine.start(pod)
                    begun[name].append(pod)
            return client.job(job.id).is_over

        engine.wait(scale, 600, "the job is not over")
        done = client.job(job.id)
        must(done.status == "completed", f"the job is {done.status}: {done.error}")
        smoke_journey.converted(client, "Ben", sounds, job.id, say)
    for name, pods in begun.items():
        for pod in pods:
            engine.wait(lambda pod=pod: engine.ended(pod) is not None, 180, f"{pod.name} does not end by itself")  # type: ignore[misc]
            must(engine.ended(pod) == 0, f"{pod.name} ended with {engine.ended(pod)}: {engine.said(pod)}")
        must(lag(engine, name) == 0, f"commands of {name} are left")
        say(f"{name}: {len(pods)} pods of one command, each ended by itself with status 0; the queue is empty")


def versions() -> str:
    """What it runs with."""
    engine = docker("version", "--format", "{{.Server.Version}}").strip()
    kustomize = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True).stdout.split()[-1]
    return f"Docker {engine}, kustomize {kustomize}, {platform.machine()}, {os.cpu_count()} cores"


def smoke(folder: Path, say: Report, *, building: bool) -> None:
    secrets = ensured(folder / "secrets.env")
    held = tuple(secret_objects(secrets, "file"))
    objects = Objects(render(OVERLAY), held)
    scaled = Objects(render_scaled(folder / "scaled"), held)
    say(f"overlay local rendered: {len(objects.rendered)} objects; with KEDA's component: {len(scaled.rendered)}")
    sounds = smoke_journey.make_sounds(folder)
    if building:
        build(say)
    engine = Engine(objects, f"k8s-smoke-{os.getpid()}", folder / "files")
    with engine:
        try:
            come_up(engine, say)
            look_inside(engine, say)
            streams_are_kept_three_times(engine, say)
            journey(engine, secrets, sounds, say)
            scaled_journey(engine, scaled, secrets, sounds, say)
        except Exception:
            for pod in engine.pods.values():
                print(f"--- {pod.name}\n{engine.said(pod)}", file=sys.stderr)
            raise
    left = {kind: engine.left(kind) for kind in ("container", "volume", "network")}
    must(not any(left.values()), f"left behind: {left}")
    say("taken down: no container, network or volume is left")


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0 when everything worked and nothing is left, 1 when not, 2 where it cannot be tried."""
    parser = argparse.ArgumentParser(
        prog="scripts/k8s-smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-build", action="store_true", help="the images are there already")
    parser.add_argument("--log", type=Path, help="also write what is told into this file")
    given = parser.parse_args(arguments)
    missing = [name for name in ("docker", "kubectl", "espeak-ng") if shutil.which(name) is None]
    if missing or not has_engine():
        print(f"k8s-smoke: {f'{missing} missing' if missing else 'no Docker engine answers here'}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of everything that takes containers away
    say = Report(given.log)
    say(versions())
    with tempfile.TemporaryDirectory(prefix="k8s-smoke-") as name:
        try:
            smoke(Path(name), say, building=not given.no_build)
        except (SmokeError, EngineError, ClientError, httpx.HTTPError, subprocess.SubprocessError) as error:
            say(f"FAILED: {error}")
            return 1
    say("everything worked")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
