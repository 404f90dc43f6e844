"""What the API refuses, and the one envelope that says so: code, message with the remedy, and the fields at fault."""

from __future__ import annotations

import msgspec


class FieldError(msgspec.Struct):
    """One wrong field, as a path ("budget.daily"), and what to do."""

    field: str
    message: str


class Problem(msgspec.Struct):
    """What went wrong."""

    code: str
    message: str
    fields: list[FieldError] = []


class Envelope(msgspec.Struct):
    """Every answer of 400 and above."""

    error: Problem


class ApiError(Exception):
    """A refusal with its HTTP status."""

    def __init__(
        self, status: int, code: str, message: str, fields: list[FieldError] | None = None, retry_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.retry_s = status, retry_s
        self.problem = Problem(code, message, fields or [])

    def body(self) -> bytes:
        """The envelope as JSON."""
        return msgspec.json.encode(Envelope(self.problem))


def not_found(what: str) -> ApiError:
    """Also for what exists but belongs to others: who may not see a thing does not learn of it."""
    return ApiError(404, "not_found", f"there is no such {what}, or it isn't yours to see")


def invalid(field: str, message: str) -> ApiError:
    """One wrong field."""
    return ApiError(422, "invalid", f"{field}: {message}", [FieldError(field, message)])
