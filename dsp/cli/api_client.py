"""The console's API as the command line calls it: a key, one error, lists of any length."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

PREFIX = "/api/v1"
TIMEOUT_S = 30.0
_TRIES = 3


class RefusedError(Exception):
    """What the API said no to, or that it can't be reached; the text says what to do."""


class ApiClient:
    """Calls of one process. Answers are JSON values; raises `RefusedError`."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/") + PREFIX, timeout=TIMEOUT_S, headers={"authorization": f"Bearer {key}"}
        )
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """What is at ``path``."""
        return self._ask("GET", path, params={k: v for k, v in query.items() if v not in ("", None)}).json()

    def post(self, path: str, body: Any = None) -> Any:
        """Made or done once, also where an answer got lost and it is asked again."""
        headers = {"idempotency-key": uuid.uuid4().hex}
        return self._ask("POST", path, json=body, headers=headers).json()

    def patch(self, path: str, body: Any, etag: str = "*") -> Any:
        """Changed."""
        return self._ask("PATCH", path, json=body, headers={"if-match": etag}).json()

    def every(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All of a list that goes on ``after`` an id."""
        after: int | None = 0
        while after is not None:
            page = self.get(path, limit=500, after=after, **query)
            yield from page["items"]
            after = page["next"]

    def rows(self, path: str, limit: int = 5000, **query: Any) -> Iterator[dict[str, Any]]:
        """All of a list that goes on at an ``offset``."""
        offset: int | None = 0
        while offset is not None:
            page = self.get(path, limit=limit, offset=offset, **query)
            yield from page["items"]
            offset = page["next"]

    def named(self, path: str, name: str, **query: Any) -> dict[str, Any] | None:
        """The one with exactly this name, or None. Raises `RefusedError` for several."""
        found = [one for one in self.every(path, q=name, **query) if one["name"] == name]
        if len(found) > 1:
            raise RefusedError(
                f"{len(found)} are called {name!r}; give the id: {', '.join(str(f['id']) for f in found)}"
            )
        return found[0] if found else None

    def find(self, path: str, text: str) -> dict[str, Any]:
        """By id, else by name."""
        if text.isascii() and text.isdecimal():
            found: dict[str, Any] = self.get(f"{path}/{text}")
            return found
        one = self.named(path, text)
        if one is None:
            raise RefusedError(f"there is no {path.strip('/').rstrip('s').replace('-', ' ')} called {text!r}")
        return one

    def _ask(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Asked again where the connection broke: a POST has its key, the others may be repeated."""
        for left in reversed(range(_TRIES)):
            try:
                answer = self._http.request(method, path, **given)
            except httpx.TransportError as error:
                if left:
                    continue
                raise RefusedError(f"the console at {self._url} can't be reached ({error}); is it running?") from None
            if answer.status_code < 400:
                return answer
            raise RefusedError(_said(answer))
        raise AssertionError


def _said(answer: httpx.Response) -> str:
    try:
        problem = answer.json()["error"]
        fields = problem["fields"]
        return "\n".join(f"{f['field']}: {f['message']}" for f in fields) if fields else str(problem["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}; is that the console?"
