"""The four addresses of the training tab, for administrators: upload a clip, start, list datasets, list jobs."""

from __future__ import annotations

from fastapi import Request
from pydantic import ValidationError

from libs.common.errors import InvalidInput
from libs.common.invalid import first_at_fault
from libs.common.jobs import JobKind
from services.gateway import workers
from services.gateway.accounts.current import Admin
from services.gateway.database import new_id
from services.gateway.datasets import catalogue, receiving
from services.gateway.jobs import budget, reading, starting
from services.gateway.jobs.schemas import OptionsIn, TrainingRequest
from services.gateway.openapi import FILE, TEXT, multipart
from services.gateway.panel.schemas import PanelDatasets, PanelJob, PanelJobs, PanelStart, PanelStarted, PanelUpload
from services.gateway.parts import SharedParts
from services.gateway.routing import problems, router, streams
from services.gateway.staging import Form, receive, release

panel_router = router("/admin/training", "training")

SHOWN = 200
_FORM = multipart(
    {
        "dataset_name": TEXT | {"description": "Made when you have none of that name"},
        "audio": FILE | {"description": "One MP3, WAV or M4A file, or another accepted format; also as `file`"},
        "transcript": TEXT | {"description": "What is said in it, word for word"},
    },
    required=("dataset_name", "audio", "transcript"),
)


@panel_router.post(
    "/upload",
    operation_id="panel_upload",
    summary="One clip and its text",
    dependencies=[streams],
    responses=problems(403, 404, 409, 413, 415, 507),
    openapi_extra=_FORM,
)
async def upload(request: Request, caller: Admin, parts: SharedParts) -> PanelUpload:
    """As `POST /samples`, for one file with its transcript; the dataset's metadata.csv gets its line."""
    form = await receive(parts, request, parts.settings.upload_limit)
    try:
        _check(form)
    except BaseException:
        await release(parts, [file.upload_id for file in form.files])
        raise
    received = await receiving.receive(parts, caller, form, {}, new_id("dst"))
    sample = received.samples[0]
    return PanelUpload(
        message=f"{sample.original_name} is in {received.dataset.slug}",
        dataset_name=received.dataset.slug,
        filename=sample.original_name,
        wav=f"wavs/{sample.sha256}.wav",
        transcript=sample.transcript,
        sample_id=sample.id,
        duration_seconds=sample.duration_seconds,
    )


@panel_router.post(
    "/start",
    operation_id="panel_start",
    summary="Fine-tune a voice that speaks",
    status_code=202,
    responses=problems(403, 404, 409),
)
async def start(body: PanelStart, caller: Admin, parts: SharedParts) -> PanelStarted:
    """As `POST /training/jobs` with the provider `xtts`."""
    asked = {"language": body.language, "epochs": body.epochs, "batch_size": body.batch_size}
    try:
        options = OptionsIn.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as error:
        raise first_at_fault(error) from None
    wanted = TrainingRequest(dataset_name=body.dataset_name, provider="xtts", options=options)
    alive = await workers.announced(parts.connected)
    price, limits = parts.settings.gpu_hour_price, budget.limits_of(parts.settings)
    async with parts.database.write() as session:
        job = await starting.start_training(
            session, caller, wanted, job_id=new_id("job"), alive=alive, price=price, limits=limits
        )
    return PanelStarted(
        message=f"training {job.voice} is queued", job_id=job.id, dataset_name=job.dataset or "", status=job.status
    )


@panel_router.get(
    "/datasets", operation_id="panel_datasets", summary="Everybody's datasets at a glance", responses=problems(403)
)
async def datasets(caller: Admin, parts: SharedParts) -> PanelDatasets:
    """The newest 200, with how many recordings each has; `GET /datasets` has all, page by page."""
    async with parts.database.read() as session:
        return PanelDatasets.of(await catalogue.listing(session, caller, after=None, limit=SHOWN))


@panel_router.get(
    "/jobs", operation_id="panel_jobs", summary="Everybody's trainings at a glance", responses=problems(403)
)
async def jobs(caller: Admin, parts: SharedParts) -> PanelJobs:
    """The newest 200, and whether each has made a voice; `GET /training/jobs` has all, page by page."""
    async with parts.database.read() as session:
        found = await reading.listing(
            session,
            caller,
            JobKind.training,
            status=None,
            q=None,
            user_id=None,
            dataset_id=None,
            before=None,
            count=SHOWN,
        )
    return PanelJobs(jobs=[PanelJob.of(job) for job in found])


def _check(form: Form) -> None:
    """One file with its text: a clip without one would be refused when the training begins."""
    if len(form.files) + len(form.rejected) > 1:
        raise InvalidInput("send one file at a time, with its transcript", field="audio")
    if not form.fields.get("transcript", "").strip():
        raise InvalidInput("the transcript is missing", field="transcript", actions=("Send what is said in the file.",))
    form.expect_only("dataset_name", "transcript")
