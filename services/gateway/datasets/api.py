"""What can be asked about datasets and samples?"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Header, Query, Request, Response
from fastapi.responses import PlainTextResponse

from libs.common.speakers import HIGHEST_SPEAKER
from services.gateway.accounts.current import Creator, CurrentUser
from services.gateway.datasets import catalogue, metadata, receiving, recordings, removing
from services.gateway.datasets.schemas import (
    DatasetChange,
    DatasetOut,
    DatasetPage,
    NewDataset,
    SampleChange,
    SampleOut,
    SamplePage,
    Transcribed,
    Upload,
)
from services.gateway.etags import IfMatch, etag
from services.gateway.idempotency import reserved_id
from services.gateway.openapi import FILE, TEXT, multipart
from services.gateway.paging import Page
from services.gateway.parts import SharedParts
from services.gateway.routing import creates, problems, router, streams
from services.gateway.staging import receive
from services.gateway.streaming import forward

dataset_router = router("/datasets", "datasets")
sample_router = router("/samples", "samples")

_FORM = multipart(
    {
        "dataset_id": TEXT | {"description": "Id or slug of a dataset"},
        "dataset_name": TEXT | {"description": "Or its name; made when you have none of it"},
        "exp_name": TEXT | {"description": "The same under its older name"},
        "files": {
            "type": "array",
            "items": FILE,
            "description": "wav, mp3, m4a, ogg, opus, webm, flac, mp4; also as `file` or `audio`",
        },
        "transcript": TEXT | {"description": "What is said, with a single file"},
        "speaker_id": {
            "type": "integer",
            "minimum": 0,
            "maximum": HIGHEST_SPEAKER,
            "description": "Whose voice it is, where a dataset has several speakers; 0 if left out",
        },
    },
    required=("files",),
)


@sample_router.post(
    "",
    operation_id="upload_samples",
    summary="Add recordings to a dataset",
    status_code=201,
    dependencies=[creates, streams],
    responses=problems(403, 404, 409, 413, 415, 507),
    openapi_extra=_FORM,
)
async def upload_samples(
    request: Request,
    caller: Creator,
    parts: SharedParts,
    dataset_id: Annotated[str | None, Query(max_length=200, description="Id or slug of a dataset")] = None,
    dataset_name: Annotated[str | None, Query(max_length=1000, description="Or its name; made if need be")] = None,
    exp_name: Annotated[str | None, Query(max_length=1000, description="The same under its older name")] = None,
) -> Upload:
    """Many in one request.

    The dataset is named by a field of the form, before or after the files, or in the query. Files that are refused are
    listed with their problems, the others are kept; the same file twice is one sample, which takes over the transcript
    and the `speaker_id` that come with it again and keeps what is left out. To train one voice on several people, send
    the files of each in a request of their own, with another `speaker_id` each time.
    """
    form = await receive(parts, request, parts.settings.upload_limit)
    query = {"dataset_id": dataset_id or "", "dataset_name": dataset_name or "", "exp_name": exp_name or ""}
    received = await receiving.receive(parts, caller, form, query, reserved_id(request, "dst"))
    return Upload.of(received)


@sample_router.get("", operation_id="list_samples", summary="Your recordings", responses=problems(404))
async def list_samples(
    caller: CurrentUser,
    parts: SharedParts,
    paging: Page,
    dataset_id: Annotated[str | None, Query(max_length=80, description="Id or slug")] = None,
) -> SamplePage:
    """Oldest first; those of one dataset with `dataset_id`."""
    async with parts.database.read() as session:
        chosen = await catalogue.find(session, caller, dataset_id) if dataset_id else None
        found = await recordings.listing(
            session, caller, dataset_id=chosen.id if chosen else None, after=paging.after, limit=paging.asked
        )
    _, following = paging.cut([sample for sample, _ in found])
    return SamplePage(
        items=[SampleOut.of(row, dataset) for row, dataset in found[: paging.count]], next_cursor=following
    )


@sample_router.get("/{sample_id}", operation_id="get_sample", summary="One recording", responses=problems(404))
async def get_sample(sample_id: str, caller: CurrentUser, parts: SharedParts, response: Response) -> SampleOut:
    """What is known of it; `audio` is its sound and `report` what was measured in it."""
    async with parts.database.read() as session:
        sample, dataset = await recordings.find(session, caller, sample_id)
    response.headers["ETag"] = etag(sample.id, sample.version)
    return SampleOut.of(sample, dataset)


@sample_router.patch(
    "/{sample_id}",
    operation_id="change_sample",
    summary="Write a transcript, or say who speaks",
    responses=problems(403, 404, 412),
)
async def change_sample(
    sample_id: str,
    body: SampleChange,
    caller: Creator,
    parts: SharedParts,
    response: Response,
    if_match: IfMatch = None,
) -> SampleOut:
    """What is said in the recording, and whose voice it is; what is left out stays.

    The dataset's metadata.csv is written anew. What a machine wrote counts as a person's from then on, also when the
    same text is sent. With another speaker the dataset is prepared anew before it is trained on; jobs that are at work
    go on with what they began with.
    """
    async with parts.database.write() as session:
        sample, dataset = await recordings.change(
            session,
            caller,
            sample_id,
            transcript=body.transcript,
            speaker_id=body.speaker_id,
            if_match=if_match,
        )
    if body.transcript is not None:
        await metadata.write(parts, dataset.id, dataset.slug)
    response.headers["ETag"] = etag(sample.id, sample.version)
    return SampleOut.of(sample, dataset)


@sample_router.delete(
    "/{sample_id}",
    operation_id="delete_sample",
    summary="Delete a recording",
    status_code=204,
    responses=problems(403, 404, 409),
)
async def delete_sample(sample_id: str, caller: Creator, parts: SharedParts) -> Response:
    """With its files. Refused while a job works on its dataset."""
    await removing.remove_sample(parts, caller, sample_id)
    return Response(status_code=204)


@sample_router.get(
    "/{sample_id}/audio",
    operation_id="get_sample_audio",
    summary="The sound of a recording",
    responses=problems(404, 416)
    | {
        200: {"description": "The sound", "content": {"audio/*": {}}},
        206: {"description": "The range that was asked for"},
    },
    response_class=Response,
)
async def get_sample_audio(
    sample_id: str,
    caller: CurrentUser,
    parts: SharedParts,
    form: Annotated[
        Literal["original", "wav"], Query(description="The file as it came, or as 22050 Hz mono WAV")
    ] = "original",
    range_: Annotated[
        str | None, Header(alias="Range", max_length=200, description="A part of it", examples=["bytes=0-65535"])
    ] = None,
) -> Response:
    """As it was sent, or as WAV; ranges are understood."""
    async with parts.database.read() as session:
        sample, dataset = await recordings.find(session, caller, sample_id)
    return await forward(
        parts.ingest,
        "GET",
        f"/datasets/{dataset.slug}/files/{sample.sha256}/audio",
        params={"form": form},
        headers={"Range": range_} if range_ and range_.isascii() else {},
    )


@sample_router.get(
    "/{sample_id}/report",
    operation_id="get_sample_report",
    summary="What was measured in a recording",
    responses=problems(404),
)
async def get_sample_report(sample_id: str, caller: CurrentUser, parts: SharedParts) -> dict[str, object]:
    """Duration, peak, clipping, noise, silence, loudness, bandwidth, and warnings."""
    async with parts.database.read() as session:
        sample, _ = await recordings.find(session, caller, sample_id)
    return {"sample_id": sample.id, **sample.report}


@dataset_router.post(
    "",
    operation_id="create_dataset",
    summary="Make an empty dataset",
    status_code=201,
    dependencies=[creates],
    responses=problems(403, 409),
)
async def create_dataset(
    body: NewDataset, request: Request, response: Response, caller: Creator, parts: SharedParts
) -> DatasetOut:
    """Recordings are added by an upload. `renamed` says that the plain slug was taken and `slug` has a suffix."""
    async with parts.database.write() as session:
        dataset, renamed = await catalogue.create(
            session, caller, dataset_id=reserved_id(request, "dst"), name=body.name, description=body.description
        )
    response.headers["ETag"] = etag(dataset.id, dataset.version)
    response.headers["Location"] = f"{dataset_router.prefix}/{dataset.id}"
    return DatasetOut.of(catalogue.Summary(dataset), renamed)


@dataset_router.get("", operation_id="list_datasets", summary="Your datasets")
async def list_datasets(caller: CurrentUser, parts: SharedParts, paging: Page) -> DatasetPage:
    """Newest first, page by page."""
    async with parts.database.read() as session:
        found = await catalogue.listing(session, caller, after=paging.after, limit=paging.asked)
    _, following = paging.cut([summary.dataset for summary in found])
    return DatasetPage(items=[DatasetOut.of(summary) for summary in found[: paging.count]], next_cursor=following)


@dataset_router.get(
    "/{dataset_id}",
    operation_id="get_dataset",
    summary="One dataset",
    responses=problems(404),
)
async def get_dataset(dataset_id: str, caller: CurrentUser, parts: SharedParts, response: Response) -> DatasetOut:
    """By id or slug. The ETag, for If-Match, stands for name and description, not for the counts."""
    async with parts.database.read() as session:
        dataset = await catalogue.find(session, caller, dataset_id)
        summary = await catalogue.summary(session, dataset)
    response.headers["ETag"] = etag(dataset.id, dataset.version)
    return DatasetOut.of(summary)


@dataset_router.patch(
    "/{dataset_id}",
    operation_id="change_dataset",
    summary="Rename or describe a dataset",
    responses=problems(403, 404, 412),
)
async def change_dataset(
    dataset_id: str,
    body: DatasetChange,
    caller: Creator,
    parts: SharedParts,
    response: Response,
    if_match: IfMatch = None,
) -> DatasetOut:
    """What is left out stays, and so does its slug."""
    async with parts.database.write() as session:
        dataset = await catalogue.change(
            session, caller, dataset_id, name=body.name, description=body.description, if_match=if_match
        )
        summary = await catalogue.summary(session, dataset)
    response.headers["ETag"] = etag(dataset.id, dataset.version)
    return DatasetOut.of(summary)


@dataset_router.delete(
    "/{dataset_id}",
    operation_id="delete_dataset",
    summary="Delete a dataset",
    status_code=204,
    responses=problems(403, 404, 409, 412),
)
async def delete_dataset(dataset_id: str, caller: Creator, parts: SharedParts, if_match: IfMatch = None) -> Response:
    """With its recordings and what was prepared of them. Refused while a job works on it."""
    await removing.remove_dataset(parts, caller, dataset_id, if_match)
    return Response(status_code=204)


@dataset_router.get(
    "/{dataset_id}/metadata.csv",
    operation_id="get_dataset_metadata",
    summary="Transcripts in LJSpeech's form",
    response_class=PlainTextResponse,
    responses=problems(404) | {200: {"content": {"text/csv": {"example": "3f5a…|Good morning.|Good morning.\n"}}}},
)
async def get_dataset_metadata(dataset_id: str, caller: CurrentUser, parts: SharedParts) -> Response:
    """`metadata.csv` in LJSpeech's form, made from the database: `id|text|text`, where `wavs/<id>.wav` is the sound."""
    async with parts.database.read() as session:
        dataset = await catalogue.find(session, caller, dataset_id)
        content = metadata.lines(await catalogue.ready_samples(session, dataset.id))
    return PlainTextResponse(content, media_type="text/csv")


@dataset_router.put(
    "/{dataset_id}/metadata.csv",
    operation_id="put_dataset_metadata",
    summary="Write many transcripts at once",
    responses=problems(403, 404, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/csv": {"schema": {"type": "string"}, "example": "morning|Good morning.|Good morning.\n"}},
        }
    },
)
async def put_dataset_metadata(dataset_id: str, request: Request, caller: Creator, parts: SharedParts) -> Transcribed:
    """LJSpeech's form, `id|text` or `id|text|text`; the id is a recording's checksum or its file's name.

    Recordings that are not named, or without a text, keep what they have. A line that fits no recording refuses all of
    them. What a machine wrote counts as a person's when it is sent, as it is or mended.
    """
    content = await request.body()
    async with parts.database.write() as session:
        dataset = await catalogue.find(session, caller, dataset_id, for_update=True)
        taken = await metadata.take(session, caller.id, dataset, content)
    await metadata.write(parts, dataset.id, dataset.slug)
    return Transcribed.of(taken)
