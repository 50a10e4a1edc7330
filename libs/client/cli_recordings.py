"""`voicewright recordings` and `transcribe`: what is in a dataset, and what is said in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from libs.client.cli_jobs import DatasetOption, dataset_key
from libs.client.terminal import JsonOption, connected, out, seconds, show_json, speaks, table


@speaks
def recordings(dataset: DatasetOption, json: JsonOption = False) -> None:
    """The recordings of a dataset: who speaks, what is said, and whether a person or a machine wrote that."""
    with connected() as client:
        found = client.samples(dataset_key(client, dataset))
    if json:
        show_json(found)
        return
    has_speakers = any(sample.speaker_id for sample in found)
    rows = table("id", "name", *(("speaker",) if has_speakers else ()), "length", "text by", "text")
    for sample in found:
        by = "machine" if sample.transcript_by_machine else "person" if sample.transcript else "–"
        length = seconds(sample.duration_seconds)
        speaker = (str(sample.speaker_id),) if has_speakers else ()
        rows.add_row(sample.id, Text(sample.name), *speaker, length, by, Text(sample.transcript or "–"))
    out.print(rows)


@speaks
def transcribe(
    dataset: DatasetOption,
    metadata: Annotated[
        typer.FileBinaryRead | None,
        typer.Argument(help="metadata.csv as LJSpeech has it: `name|text`, a line each", show_default=False),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the present texts to this file, to be read and mended", dir_okay=False)
    ] = None,
) -> None:
    """Give recordings the texts that are said in them, all at once. What a machine wrote is confirmed by sending it."""
    if (metadata is None) == (save is None):
        raise typer.BadParameter("name a metadata.csv to send, or a file to --save one to", param_hint="METADATA")
    with connected() as client:
        key = dataset_key(client, dataset)
        if save is not None:
            save.write_bytes(client.read_transcripts(key))
            out.print(f"{save}: read and mend it, then voicewright transcribe --dataset {dataset} {save}", markup=False)
            return
        assert metadata is not None
        done = client.write_transcripts(key, metadata.read())
    out.print(
        f"{done['changed']} transcripts written, {done['confirmed']} of a machine's confirmed; "
        f"{done['without_transcript']} recordings have none, {done['by_machine']} one that nobody has confirmed."
    )
