"""Every error the runtime raises, under one root.

Rule: ``code`` is API and stays stable; the wording is not. ``hint`` says what the person can do next. Messages carry no
secrets: values come from callers only where the message says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


class CRAError(Exception):
    """Root of all errors of this package.

    Attributes:
        code: stable identifier, lower-case words joined by underscores.
        message: one line for people.
        hint: what to do next, or None.
    """

    default_code: ClassVar[str] = "cra_error"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code: str = code or self.default_code
        self.message: str = message
        self.hint: str | None = hint


class CanonicalError(CRAError):
    """A value has no RFC 8785 form: NaN, infinity, lone surrogate, integer beyond 2^53-1, too deep, not JSON."""

    default_code = "not_canonical"


class SettingsError(CRAError):
    """A setting, flag or environment variable has a value that can't be used."""

    default_code = "invalid_settings"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in an atlas.

    Attributes:
        file: path relative to the atlas folder, or the name the text was given.
        pointer: RFC 6901 JSON pointer into that file ("" for the whole of it).
        code: stable identifier (specs/atlas.md lists them).
        message: one line for people.
        column: 1-based position, in characters, in the text that stands there, if it is an expression.
    """

    file: str
    pointer: str
    code: str
    message: str
    column: int | None = None

    def __str__(self) -> str:
        column = "" if self.column is None else f"{self.column}:"
        return f"{self.file}:{self.pointer}:{column} {self.code}: {self.message}"


class AtlasInvalidError(CRAError):
    """An atlas can't be loaded. ``problems`` holds every one found, in file order."""

    default_code = "atlas_invalid"

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems) or "atlas is invalid", hint=hint)


class AtlasConflictError(CRAError):
    """Two loaded atlases claim the same atlas id, action id or published name."""

    default_code = "atlas_conflict"


RequestCode = Literal[
    "invalid_request",
    "unsupported_version",
    "duplicate_request",
    "clock_skew",
    "unknown_session",
    "session_ended",
    "unknown_resolution",
    "resolution_expired",
    "unknown_action",
    "invalid_parameters",
    "unknown_capability",
    "unknown_atlas",
]


class RequestError(CRAError):
    """A CARP request is refused before any policy is asked (specs/carp.md lists the codes and their order)."""

    default_code = "invalid_request"

    def __init__(self, code: RequestCode, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)


class LimitError(CRAError):
    """A bound on what one caller, or all of them, can take up is reached (``too_many_sessions``)."""

    default_code = "too_many_sessions"


class TraceError(CRAError):
    """Root of what can go wrong with a trace."""

    default_code = "trace_error"


class TraceUnavailableError(TraceError):
    """The store can't take or give events now (full disk, no permission). The call that needed it is refused.

    Attributes:
        reason: what became of what was recorded, where it is not where it was put: ``missing``, ``replaced``, ``cut``,
            ``grown``, ``changed``; None for whatever else is in the way.
    """

    default_code = "trace_unavailable"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.reason: str | None = reason


class TraceLockedError(TraceError):
    """Another process is writing this chain."""

    default_code = "trace_locked"


class UnknownTraceError(TraceError):
    """No trace with this session id is in the store."""

    default_code = "unknown_trace"


ExecutionCode = Literal[
    "execution_failed",
    "invalid_parameters",
    "timeout",
    "cancelled",
    "busy",
    "no_executor",
    "missing_setting",
    "option_injection",
    "value_refused",
    "address_refused",
    "redirect_refused",
    "upstream_unavailable",
    "upstream_lost",
    "invalid_result",
    "output_too_large",
]


class ExecutionError(CRAError):
    """An approved action did not complete. The message is safe to show: it carries no exception text of foreign code.

    Attributes:
        faults: of ``invalid_parameters``: RFC 6901 pointer and message of each.
    """

    default_code = "execution_failed"

    def __init__(
        self,
        code: ExecutionCode,
        message: str,
        *,
        hint: str | None = None,
        faults: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.faults: tuple[tuple[str, str], ...] = tuple(faults)


AskCode = Literal["ask_undeclared", "ask_unsupported", "ask_unanswered", "ask_invalid"]


class AskError(CRAError):
    """A function asked its caller's client for something and got no answer. The message is safe to show.

    Codes: ``ask_undeclared`` (its atlas does not say that it may), ``ask_unsupported`` (the client can't, or there is none),
    ``ask_unanswered`` (it failed to answer), ``ask_invalid`` (question or answer has the wrong form).

    Attributes:
        capability: what it asked for, where it is the client's lack of it: ``elicitation``, ``sampling`` or ``roots``.
    """

    default_code = "ask_unanswered"

    def __init__(self, code: AskCode, message: str, *, capability: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.capability: str | None = capability


class ActionError(CRAError):
    """Raised by an action's own Python function to say what went wrong: the one exception whose text the agent is shown."""

    default_code = "action_error"


class ApprovalError(CRAError):
    """An approval can't be settled or used: ``unknown_approval``, ``approval_settled`` or ``approval_expired``."""

    default_code = "unknown_approval"


class AuthenticationError(CRAError):
    """A request has no credential, or one that can't be accepted (``invalid_token``). Says nothing of why in detail.

    Attributes:
        challenge: value of the ``WWW-Authenticate`` header to answer with.
    """

    default_code = "unauthenticated"

    def __init__(self, message: str, *, challenge: str, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.challenge: str = challenge


CredentialCode = Literal["credential_lapsed", "credential_unchecked"]


class CredentialError(CRAError):
    """A call has waited, and is not carried out: its credential no longer stands for the same caller, or nobody can tell."""

    default_code = "credential_lapsed"

    def __init__(self, code: CredentialCode, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)


class ForbiddenError(CRAError):
    """The principal is known, and may not do this.

    Attributes:
        challenge: value of the ``WWW-Authenticate`` header to answer with; None if another credential would not help.
    """

    default_code = "forbidden"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, challenge: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.challenge: str | None = challenge
