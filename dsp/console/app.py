"""The console as one ASGI application: `api` and `pages` behind `edge`."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dsp.base.console_metrics import ConsoleMetrics
from dsp.base.logs import logger
from dsp.console import pages
from dsp.console.api import OPERATIONS, PREFIX, once, parse, permitted
from dsp.console.edge import MOST_ID, Guard, body_of, check_csrf, error_response, identify, language_of
from dsp.console.errors import ApiError
from dsp.console.measure import Measure
from dsp.console.openapi import document
from dsp.console.operation import JSON, Call, Operation, Reply
from dsp.console.services import Services
from dsp.console.words import problem_in

_LOG = logger(__name__)


def build(services: Services, metrics: ConsoleMetrics | None = None) -> ASGIApp:
    """The application over ``services``; what it does is counted in ``metrics``."""
    routes = [Route(PREFIX + "/openapi.json", _openapi(), methods=["GET"])]
    for path in dict.fromkeys(o.path for o in OPERATIONS):
        methods = {o.method: o for o in OPERATIONS if o.path == path}
        route = PREFIX + path.replace("{id}", "{id:int}").replace("{key}", "{key:path}")
        routes.append(Route(route, _endpoint(services, methods), methods=list(methods)))
    routes += pages.routes(services)
    routes.append(Route("/healthz", _health, methods=["GET"]))
    handlers = dict.fromkeys((ApiError, HTTPException, Exception), _refused(services))
    guarded = Guard(Starlette(routes=routes, exception_handlers=handlers))  # outside: errors have its headers too
    return Measure(guarded, routes, metrics or ConsoleMetrics())


def _endpoint(services: Services, methods: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        body = await body_of(request)
        return await run_in_threadpool(_answer, services, operation, request, body)

    return endpoint


def _answer(services: Services, operation: Operation, request: Request, body: bytes) -> Response:
    """Everything of one API request, in a thread."""
    by = identify(services, request)
    if by is None:
        raise ApiError(401, "signed_out", "sign in, or send an API key as `authorization: Bearer dsp_...`")
    check_csrf(request, by, request.headers.get("x-csrf-token", ""))
    permitted(operation, by)
    query, parsed = parse(operation, dict(request.query_params), body)
    etag = request.headers.get("if-match", "")
    if operation.match and not etag:
        raise ApiError(428, "if_match", "send if-match with the ETag that you read, or *")
    ref = int(request.path_params.get("id", 0))
    if ref > MOST_ID:
        raise ApiError(404, "not_found", "ids are not that large")
    call = Call(services, by, ref, query, parsed, etag, str(request.path_params.get("key", "")))
    key = request.headers.get("idempotency-key")
    if operation.method == "POST" and key is not None:

        def run() -> tuple[int, bytes]:
            reply = operation.run(call)
            return reply.status, msgspec.json.encode(reply.value)

        asked = b"\n".join((request.url.path.encode(), etag.encode("utf-8", "replace"), body))
        status, data = once(services, by, key, asked, run)
        return Response(data, status, media_type="application/json")
    reply = operation.run(call)
    unchanged = bool(reply.etag) and not reply.live and request.headers.get("if-none-match") == reply.etag
    if unchanged and request.method in ("GET", "HEAD"):
        return Response(status_code=304, headers={"etag": reply.etag})
    return _response(operation, reply)


def _response(operation: Operation, reply: Reply) -> Response:
    if reply.path is not None:
        return FileResponse(reply.path, reply.status, media_type=operation.media, filename=reply.filename)
    if reply.content is not None:
        headers = {"content-disposition": f'attachment; filename="{reply.filename}"'}
        return Response(reply.content, reply.status, headers, operation.media)
    headers = {"etag": reply.etag} if reply.etag else {}
    return Response(msgspec.json.encode(reply.value), reply.status, headers, JSON)


def _openapi() -> Callable[[Request], Awaitable[Response]]:
    body = msgspec.json.encode(document())

    async def endpoint(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return endpoint


async def _health(_: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


def _refused(services: Services) -> Any:
    """What is answered to a request that failed: the envelope, or a page to who asked for one."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            refused = error
        elif isinstance(error, HTTPException):
            refused = ApiError(error.status_code, "http", error.detail)
        else:
            _LOG.error("the console failed", exc_info=error)
            refused = ApiError(500, "broken", "that is our fault and has been logged; try again")
        response = await _told(services, request, refused)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    return answer


async def _told(services: Services, request: Request, error: ApiError) -> Response:
    if not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", ""):
        with contextlib.suppress(Exception):  # where no page can be made either, the envelope still says what is wrong
            return await run_in_threadpool(pages.refused, services, request, error)
    error.problem = problem_in(language_of(request), error.problem)
    return error_response(error)
