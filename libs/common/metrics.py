"""What can be counted? Prometheus metrics that all services share."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

REQUESTS = Counter(
    "voicewright_http_requests_total", "HTTP requests by route and status", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram("voicewright_http_request_seconds", "Time to answer a request", ["method", "route"])
WORK_TOTAL = Counter("voicewright_work_total", "Commands worked on, by step and outcome", ["step", "outcome"])
WORK_SECONDS = Histogram(
    "voicewright_work_seconds",
    "Time in one command",
    ["step"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 7200, 14400),
)
QUEUE = Gauge("voicewright_queue_commands", "Commands in a consumer's queue", ["consumer", "state"])
CONVERSION_BATCH = Histogram(
    "voicewright_conversion_batch_requests",
    "Requests that were converted in one turn",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32),
)
CONVERSION_BATCH_RETRIES = Counter(
    "voicewright_conversion_batch_retries_total", "Passes over several requests that failed and were done one by one"
)
JOBS = Gauge("voicewright_jobs", "Jobs by state, as the database has them", ["state"])

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics() -> Response:
    """Everything counted so far, in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
