"""What can be counted? Every metric of every service, declared here and nowhere else.

Names follow Prometheus: one prefix, base units, `_total` for what only grows. Whatever stands in a label is one of few
values that the code knows (`LABELS`): a name, an id or a path that somebody chose never does.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from libs.common.errors import PlatformError

LABELS = {
    "client": "the name under which a service speaks to the broker",
    "code": "a problem's code, as libs/common/errors.py lists them; `other` for any other",
    "gpu": "the card's number on its node",
    "kind": "of a job: training, preprocess, model, conversion, speech; of an upload: recording, model",
    "lane": "high, normal, low",
    "method": "the HTTP method; `other` for one that no route has",
    "outcome": "how it ended",
    "root": "data, uploads, models",
    "route": "the route's template; `unmatched` for an address that none has",
    "service": "whose work it is: ingest, preprocessor, trainer, models (the trainer's short work), inference",
    "state": "of a job: its state; of commands: pending or unacknowledged at the broker, held until their turn",
    "status": "the HTTP status; 499 when the client went away",
    "step": "the step of a job: validate, preprocess, train, index, evaluate, publish, make, convert, say",
    "stream": "a stream of the broker, KV_ before those of buckets",
    "verdict": "retry: the worker tries again; final: the job fails",
    "way": "request: somebody waits for it; job: one recording or text of a job; live: one block while it is spoken",
}

_LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 7200, 14400, 43200)

# -- every service ----------------------------------------------------------------------------------------------------

REQUESTS = Counter(
    "voicewright_http_requests_total", "HTTP requests by route and status", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram("voicewright_http_request_seconds", "Time to answer a request", ["method", "route"])
BROKER_CONNECTED = Gauge("voicewright_broker_connected", "1 while the connection to the broker stands", ["client"])
DISK_FREE = Gauge("voicewright_disk_free_bytes", "Room for this service on the volume of a folder", ["root"])
DISK_SIZE = Gauge("voicewright_disk_size_bytes", "Size of the volume of a folder", ["root"])

# -- workers: ingest, preprocessor, trainer, inference ----------------------------------------------------------------

QUEUE_WAIT = Histogram(
    "voicewright_queue_wait_seconds",
    "Time from a command's sending to the worker that first takes it",
    ["step", "lane"],
    buckets=_LONG,
)
WORK_TOTAL = Counter("voicewright_work_total", "Commands worked on, by step and outcome", ["step", "outcome"])
WORK_SECONDS = Histogram("voicewright_work_seconds", "Time in one command", ["step"], buckets=_LONG)
WORK_FAILURES = Counter(
    "voicewright_work_failures_total", "Failed attempts at a step, by reason", ["step", "code", "verdict"]
)
LEASES_HELD = Gauge("voicewright_leases_held", "Steps that this worker has in hand", ["step"])
LEASES_TAKEN_OVER = Counter(
    "voicewright_leases_taken_over_total", "Steps whose former worker fell silent in the middle of them", ["step"]
)
GPU_MEMORY = Gauge("voicewright_gpu_memory_bytes", "Memory of a card; absent without a card", ["gpu"])
GPU_MEMORY_USED = Gauge("voicewright_gpu_memory_used_bytes", "Memory of a card that is taken, by anybody", ["gpu"])
GPU_BUSY = Gauge("voicewright_gpu_busy_ratio", "Share of the last moments in which a card computed, 0-1", ["gpu"])

# -- gateway ----------------------------------------------------------------------------------------------------------

JOBS = Gauge("voicewright_jobs", "Jobs by state, as the database has them", ["state"])
JOB_SECONDS = Histogram(
    "voicewright_job_seconds",
    "Time from a job's queueing (or its retry) to its end; its count is the number of ended jobs",
    ["kind", "state"],
    buckets=_LONG,
)
JOB_FAILURES = Counter("voicewright_job_failures_total", "Jobs that failed, by reason", ["kind", "code"])
QUEUE = Gauge("voicewright_queue_commands", "Commands for a service, waiting or in hand", ["service", "lane", "state"])
BUDGET_TAKEN = Gauge(
    "voicewright_training_budget_taken",
    "Estimated costs of trainings that wait, run, or began within 24 hours, in the currency of GPU_HOUR_PRICE",
)
BUDGET_LIMIT = Gauge(
    "voicewright_training_budget_limit", "What they may come to, DAILY_TRAINING_BUDGET; not a number without a limit"
)
WORKERS = Gauge("voicewright_workers", "Workers that announce themselves", ["service"])
STREAM_MESSAGES = Gauge(
    "voicewright_stream_messages", "Messages in a stream; those of DEADLETTERS wait for people", ["stream"]
)
STREAM_BYTES = Gauge("voicewright_stream_bytes", "Size of a stream", ["stream"])
STREAM_LIMIT = Gauge("voicewright_stream_limit_bytes", "Size at which a stream is full; absent without one", ["stream"])
OUTBOX_UNSENT = Gauge("voicewright_outbox_unsent_messages", "Messages of the database that the broker has not yet")
OUTBOX_AGE = Gauge("voicewright_outbox_oldest_seconds", "Age of the oldest of them, 0 when there is none")

# -- ingest -----------------------------------------------------------------------------------------------------------

UPLOADS = Counter("voicewright_uploads_total", "Files that were sent: accepted or refused", ["kind", "outcome"])
UPLOAD_REFUSALS = Counter("voicewright_upload_refusals_total", "Files that were refused, by reason", ["code"])
UPLOAD_BYTES = Counter("voicewright_upload_bytes_total", "Bytes of files received, kept or not", ["kind"])
UPLOAD_SOUND = Counter("voicewright_upload_sound_seconds_total", "Length of the recordings that were accepted")

# -- inference --------------------------------------------------------------------------------------------------------

CONVERSIONS = Counter(
    "voicewright_conversions_total",
    "Conversions: done, refused (the recording or the request), failed (the platform), busy, cancelled",
    ["way", "outcome"],
)
CONVERSION_SECONDS = Histogram(
    "voicewright_conversion_seconds",
    "Time from a conversion's arrival to its sound, its place in the queue included",
    ["way"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900),
)
CONVERSION_RTF = Histogram(
    "voicewright_conversion_real_time_factor",
    "Seconds of computing for a second of sound; above 1 it is slower than speech",
    ["way"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 4, 8),
)
CONVERSION_SOUND = Counter("voicewright_conversion_sound_seconds_total", "Length of the sound that was made", ["way"])
CONVERSION_BATCH = Histogram(
    "voicewright_conversion_batch_requests",
    "Requests that were converted in one turn",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
)
CONVERSION_BATCH_RETRIES = Counter(
    "voicewright_conversion_batch_retries_total", "Passes over several requests that failed and were done one by one"
)
INFERENCE_IN_HAND = Gauge(
    "voicewright_inference_in_hand_requests", "Requests that somebody waits for, at work or waiting for their turn"
)
TEXTS = Counter(
    "voicewright_texts_total",
    "Texts that were to be said: done, refused, failed (the voice or the platform), busy, cancelled",
    ["way", "outcome"],
)
SPEECH_SECONDS = Histogram(
    "voicewright_speech_seconds",
    "Time from a text's arrival to the last of its sound, its place in the queue included",
    ["way"],
    buckets=(0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600),
)
SPEECH_RTF = Histogram(
    "voicewright_speech_real_time_factor",
    "Seconds of computing for a second of spoken text; above 1 it is slower than speech",
    ["way"],
    buckets=(0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 4, 8, 16, 32),
)
SPEECH_SOUND = Counter("voicewright_speech_sound_seconds_total", "Length of the texts that were said", ["way"])
LIVE_SESSIONS = Gauge("voicewright_live_sessions", "Live conversions that are connected")
LIVE_DROPPED = Counter(
    "voicewright_live_dropped_blocks_total", "Blocks of live conversions that were dropped because computing was late"
)

# Who exports what, in the order of the table in docs/operations.md.
EXPORTED: dict[str, tuple[Counter | Gauge | Histogram, ...]] = {
    "every service": (REQUESTS, REQUEST_SECONDS, BROKER_CONNECTED, DISK_FREE, DISK_SIZE),
    "ingest, preprocessor, trainer, inference": (
        QUEUE_WAIT,
        WORK_TOTAL,
        WORK_SECONDS,
        WORK_FAILURES,
        LEASES_HELD,
        LEASES_TAKEN_OVER,
    ),
    "preprocessor, trainer, inference": (GPU_MEMORY, GPU_MEMORY_USED, GPU_BUSY),
    "gateway": (
        JOBS,
        JOB_SECONDS,
        JOB_FAILURES,
        BUDGET_TAKEN,
        BUDGET_LIMIT,
        QUEUE,
        WORKERS,
        STREAM_MESSAGES,
        STREAM_BYTES,
        STREAM_LIMIT,
        OUTBOX_UNSENT,
        OUTBOX_AGE,
    ),
    "ingest": (UPLOADS, UPLOAD_REFUSALS, UPLOAD_BYTES, UPLOAD_SOUND),
    "inference": (
        CONVERSIONS,
        CONVERSION_SECONDS,
        CONVERSION_RTF,
        CONVERSION_SOUND,
        CONVERSION_BATCH,
        CONVERSION_BATCH_RETRIES,
        TEXTS,
        SPEECH_SECONDS,
        SPEECH_RTF,
        SPEECH_SOUND,
        INFERENCE_IN_HAND,
        LIVE_SESSIONS,
        LIVE_DROPPED,
    ),
}

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """An HTTP method as a label: a client may invent any word."""
    return method if method in _METHODS else "other"


def code_label(code: Any) -> str:
    """A problem's code as a label: what a message carries must not make series without end."""
    return code if isinstance(code, str) and code in _codes(PlatformError) else "other"


def _codes(error: type[PlatformError]) -> set[str]:
    return {error.code}.union(*(_codes(one) for one in error.__subclasses__()))


router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics() -> Response:
    """Everything counted so far, in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
