"""Where does everything lie? Every path and every object key of the platform is built here."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from libs.common.errors import InvalidName
from libs.common.places import Places
from libs.common.settings import CommonSettings

RESERVED = frozenset({"uploads", "models", "assets", "tmp", "mute", "logs", "versions"})
SLUG_LENGTH = 64
WITHOUT_DATASET = ".jobs"
"""Where below DATA_ROOT the steps of jobs lie that have no dataset; no slug begins with a dot."""
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEY_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIX_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


def slugify(name: str, fallback: str = "voice") -> str:
    """A display name as a folder key: lower-case ASCII, digits, `-` and `_`, at most 64 characters.

    The result is never reserved and never empty: a name without any ASCII letter becomes `fallback`.
    Whether it is free is for the caller to find out; `with_suffix` makes another.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", ascii_name).strip("-_")[:SLUG_LENGTH].strip("-_") or fallback
    return with_suffix(slug) if slug in RESERVED else slug


def with_suffix(slug: str) -> str:
    """Another slug for the same name, e.g. `test` → `test-7k2q`, when the first is taken."""
    tail = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(4))
    return f"{slug[: SLUG_LENGTH - 5].rstrip('-_')}-{tail}"


def check_slug(slug: str) -> str:
    """`slug` itself when it may name a folder; raises InvalidName otherwise."""
    if not _SLUG.fullmatch(slug) or slug in RESERVED:
        raise InvalidName(f"{slug!r} is no folder key: use a-z, 0-9, - and _, at most {SLUG_LENGTH} characters")
    return slug


def check_key(key: str) -> str:
    """One path component made of a generated id, hash or file name of ours; raises InvalidName otherwise."""
    if not _KEY_PART.fullmatch(key) or ".." in key:
        raise InvalidName(f"{key!r} cannot be part of a path")
    return key


@dataclass(frozen=True)
class StepFolder:
    """`…/.steps/<job>/<step>`: the attempts of one step of one job, and its manifests."""

    folder: Path

    def attempt(self, token: int) -> Path:
        """Where the owner of lease token `token` works; nobody else writes there."""
        return self.folder / f".attempt-{token}"

    def manifest(self, token: int) -> Path:
        return self.folder / f"manifest-{token}.json"

    def attempts(self) -> dict[int, Path]:
        """The attempts' folders that exist, by token."""
        found = ((folder.name.removeprefix(".attempt-"), folder) for folder in self.folder.glob(".attempt-*"))
        return {int(token): folder for token, folder in sorted(found) if token.isdecimal()}

    def latest_token(self) -> int:
        """The highest token that has left something here, 0 when none has."""
        names = [path.stem.removeprefix("manifest-") for path in self.folder.glob("manifest-*.json")]
        return max([0, *self.attempts(), *(int(name) for name in names if name.isdecimal())])

    def earlier_attempts(self, token: int) -> list[Path]:
        """Folders of former owners that exist, newest first: finished parts may be taken over from them."""
        return [folder for t in range(token - 1, 0, -1) if (folder := self.attempt(t)).is_dir()]


@dataclass(frozen=True)
class ExperimentFiles:
    """The names of RVC's layout under any folder: an attempt's, or the experiment's own."""

    folder: Path

    @property
    def gt_wavs(self) -> Path:
        return self.folder / "0_gt_wavs"

    @property
    def wavs_16k(self) -> Path:
        return self.folder / "1_16k_wavs"

    @property
    def f0_coarse(self) -> Path:
        return self.folder / "2a_f0"

    @property
    def f0_hz(self) -> Path:
        return self.folder / "2b_f0nsf"

    def features(self, width: int) -> Path:
        return self.folder / f"3_feature{width}"

    @property
    def filelist(self) -> Path:
        return self.folder / "filelist.txt"

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def train_log(self) -> Path:
        return self.folder / "train.log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


@dataclass(frozen=True)
class Experiment(ExperimentFiles):
    """`$DATA_ROOT/<experiment>`: the folders that people see are links to what the newest manifest names."""

    def step(self, job_id: str, step: str) -> StepFolder:
        return StepFolder(self.folder / ".steps" / check_key(job_id) / check_key(step))

    @property
    def steps(self) -> Path:
        return self.folder / ".steps"

    def steps_of(self, job_id: str) -> list[StepFolder]:
        """The steps that one job has begun."""
        return [StepFolder(folder) for folder in sorted((self.steps / check_key(job_id)).glob("*")) if folder.is_dir()]


@dataclass(frozen=True)
class ConvertedFiles:
    """The folder of one attempt at a conversion job: a sound and a record for each recording that is done.

    `begun` stands while a recording is worked on; a worker that stops in order takes it away again.
    """

    folder: Path

    def sound(self, number: int, extension: str) -> Path:
        return self.folder / "sounds" / f"{number:05}.{check_key(extension)}"

    def record(self, number: int) -> Path:
        return self.folder / "records" / f"{number:05}.json"

    def begun(self, number: int) -> Path:
        return self.folder / "begun" / f"{number:05}"


@dataclass(frozen=True)
class VoiceVersion:
    """`$MODELS_ROOT/<voice>/versions/<job>`: one whole version of a voice."""

    folder: Path
    slug: str

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.slug}.pth"

    @property
    def index(self) -> Path:
        return self.folder / f"{self.slug}.index"

    @property
    def card(self) -> Path:
        return self.folder / "voice.json"

    @property
    def native(self) -> Path:
        """The weights in our own form, which holds no code and says its content encoder; older versions lack it."""
        return self.folder / f"{self.slug}.safetensors"

    def file(self, name: str) -> Path:
        """Another file of the version, by the name that its card gives; raises InvalidName for no plain name."""
        return self.folder / check_key(name)


@dataclass(frozen=True)
class Voice:
    """`$MODELS_ROOT/<voice>`: the card is replaced last and names the version that is served."""

    folder: Path
    slug: str

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.slug}.pth"

    @property
    def index(self) -> Path:
        return self.folder / f"{self.slug}.index"

    @property
    def card(self) -> Path:
        return self.folder / "voice.json"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    @property
    def versions(self) -> Path:
        return self.folder / "versions"

    def version(self, job_id: str) -> VoiceVersion:
        return VoiceVersion(self.versions / check_key(job_id), self.slug)

    def version_attempt(self, job_id: str, token: int) -> VoiceVersion:
        """Where a version is put together before its commit, on the volume where it will stay."""
        return VoiceVersion(self.versions / f".attempt-{check_key(job_id)}-{token}", self.slug)


@dataclass(frozen=True)
class DatasetUploads:
    """`$UPLOADS_DIR/<dataset>`: originals by content hash and the LJSpeech layout beside them."""

    folder: Path

    def original(self, sha256: str, extension: str) -> Path:
        return self.folder / f"{check_key(sha256)}.{check_key(extension)}"

    def find_originals(self, sha256: str) -> list[Path]:
        """The original with this checksum, whatever its extension; none when it is not here."""
        return sorted(self.folder.glob(f"{check_key(sha256)}.*"))

    @property
    def wavs(self) -> Path:
        return self.folder / "wavs"

    def wav(self, sha256: str) -> Path:
        """22050 Hz mono PCM16 of one original."""
        return self.wavs / f"{check_key(sha256)}.wav"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def report(self, sha256: str) -> Path:
        return self.reports / f"{check_key(sha256)}.json"

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata.csv"


@dataclass(frozen=True)
class StagedUpload:
    """`$UPLOADS_DIR/.staging/<upload>`: one examined file that no dataset has yet. Whole, or not there."""

    folder: Path

    @property
    def original(self) -> Path:
        """The file as it was sent; its type is decided by its content."""
        return self.folder / "original"

    @property
    def wav(self) -> Path:
        """22050 Hz mono PCM16 of the original."""
        return self.folder / "audio.wav"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def record(self) -> Path:
        """Checksum, extension, size, duration, display name; left until the sweep when a dataset took the rest."""
        return self.folder / "upload.json"


class Paths:
    """All places of an installation, from its settings."""

    def __init__(self, settings: CommonSettings) -> None:
        self.data_root = settings.data_root
        assert settings.uploads_dir
        assert settings.hubert_path
        assert settings.rmvpe_path
        assert settings.pretrained_root
        self.uploads_dir: Path = settings.uploads_dir
        self.models_root = settings.models_root
        self.assets_root = settings.assets_root
        self.hubert: Path = settings.hubert_path
        self.rmvpe: Path = settings.rmvpe_path
        self.pretrained: Path = settings.pretrained_root
        self.places = Places(settings)
        """What these are called in what others hear."""

    def experiment(self, slug: str) -> Experiment:
        """The experiment of a dataset, or what stands for it when a job has none."""
        return Experiment(self.data_root / (slug if slug == WITHOUT_DATASET else check_slug(slug)))

    def voice(self, slug: str) -> Voice:
        return Voice(self.models_root / check_slug(slug), slug)

    def uploads(self, dataset: str) -> DatasetUploads:
        return DatasetUploads(self.uploads_dir / check_slug(dataset))

    @property
    def sent_with_jobs(self) -> Path:
        """Recordings that were sent with a job, a folder for each job; removed once the job is over."""
        return self.uploads_dir / ".jobs"

    def job_uploads(self, job_id: str) -> DatasetUploads:
        """The recordings of one job, in the layout of a dataset."""
        return DatasetUploads(self.sent_with_jobs / check_key(job_id))

    @property
    def staging(self) -> Path:
        """Where uploads wait until the gateway has given them to a dataset; swept when they are old."""
        return self.uploads_dir / ".staging"

    def staged(self, upload_id: str) -> Path:
        return self.staging / check_key(upload_id)

    def staged_upload(self, upload_id: str) -> StagedUpload:
        """The files of a staged upload."""
        return StagedUpload(self.staged(upload_id))

    def unfinished_upload(self, upload_id: str) -> StagedUpload:
        """Where an upload is received and examined before it gets its name by one rename."""
        return StagedUpload(self.staging / f".new-{check_key(upload_id)}")

    @property
    def logs(self) -> Path:
        """Where services keep their last lines, a folder for each; searched by the gateway."""
        return self.data_root / ".logs"

    def team(self, meeting: str) -> Path:
        """Where the first of several nodes tells the others what they train; `meeting` is where they meet."""
        return self.data_root / ".teams" / f"{hashlib.sha256(meeting.encode()).hexdigest()[:16]}.json"

    @property
    def data_trash(self) -> Path:
        """Where experiments go before they are removed file by file; emptied at every start of ingest."""
        return self.data_root / ".trash"

    @property
    def uploads_trash(self) -> Path:
        """The same for uploads, which may lie on another volume."""
        return self.uploads_dir / ".trash"

    @property
    def mute(self) -> Path:
        """Silent training material that all experiments share (`logs/mute` of RVC)."""
        return self.data_root / "mute"

    def in_data(self, relative: str) -> Path:
        """A path that a manifest or message gives relative to `DATA_ROOT`; raises InvalidName when it leaves it."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts:
            raise InvalidName(f"{relative!r} leaves the data folder")
        return self.data_root / pure

    def relative(self, path: Path) -> str:
        """`path` below `DATA_ROOT` as messages and the database carry it."""
        return path.relative_to(self.data_root).as_posix()


def version_key(voice: str, job_id: str, name: str) -> str:
    """Object key of one file of a voice version in the models bucket."""
    return f"{check_slug(voice)}/{check_key(job_id)}/{check_key(name)}"


def version_prefix(voice: str) -> str:
    """What the object keys of all versions of a voice begin with."""
    return f"{check_slug(voice)}/"


def sample_key(dataset: str, sha256: str, extension: str) -> str:
    """Object key of one original in the samples bucket."""
    return f"{check_slug(dataset)}/{check_key(sha256)}.{check_key(extension)}"


def sample_prefix(dataset: str) -> str:
    """What the object keys of all originals of a dataset begin with."""
    return f"{check_slug(dataset)}/"
