"""What does every error of the platform say of itself? RFC 9457 problem details; libs/common/errors.py has the tree."""

from __future__ import annotations

from typing import Any, ClassVar


class PlatformError(Exception):
    """Something went wrong in the platform"""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "platform_error"
    retryable: ClassVar[bool] = False
    suggested_actions: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        detail: str = "",
        *,
        field: str | None = None,
        actions: tuple[str, ...] | None = None,
        retry_after: float | None = None,
        **extra: Any,
    ) -> None:
        """`detail` says what happened in this case; `field` names the input at fault; `extra` goes into the problem."""
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.field = field
        self.actions = actions if actions is not None else self.suggested_actions
        self.retry_after = retry_after
        self.extra = extra

    @classmethod
    def title(cls) -> str:
        """The class's docstring, first line, is the problem's title."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]

    def problem(self) -> dict[str, Any]:
        """This error as RFC 9457 problem details, the same in HTTP answers, events and job rows."""
        body: dict[str, Any] = {
            "type": f"urn:voicewright:problem:{self.code}",
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
            "suggested_actions": list(self.actions),
        }
        if self.field is not None:
            body["field"] = self.field
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
        return body | self.extra
