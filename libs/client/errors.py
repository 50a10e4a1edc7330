"""What can go wrong for a client of the platform?

ClientError
├── ApiProblem          the platform answered with a problem
│   └── SignInNeeded    no token, an expired one, or one that may not do this (401, 403)
├── NotReachable        no platform answers at the address
├── UploadBroken        an upload of many files ended before its end
└── JobEnded            a job that was waited for failed or was cancelled
"""

from __future__ import annotations

from libs.client.models import Job, Problem


class ClientError(Exception):
    """Something went wrong; the text is for people."""


class ApiProblem(ClientError):
    """The platform refused a request; `problem` says why and what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentences())
        self.problem = problem

    @property
    def status(self) -> int:
        return self.problem.status


class SignInNeeded(ApiProblem):
    """Sign in, or ask for the right."""


class NotReachable(ClientError):
    """Nothing answers at the address."""


class UploadBroken(ClientError):
    """An upload of many files ended before its end because of `cause`; `kept` of `of` files are on the platform."""

    def __init__(self, cause: ClientError, kept: int, of: int) -> None:
        super().__init__(
            f"{cause} {kept} of {of} files were kept. Run it again when the cause is gone: it goes on, and a recording "
            "that is there is not kept twice."
        )
        self.cause = cause
        self.kept = kept


class JobEnded(ClientError):
    """The job is over and did not complete."""

    def __init__(self, job: Job) -> None:
        why = f" {job.error.sentences()}" if job.error else ""
        super().__init__(f"Job {job.id} {job.status}.{why}")
        self.job = job
