"""Where HTTP ends: body limits, security headers, who is asking, CSRF.

Every unsafe request that comes with a cookie must carry the session's CSRF token, and must not come from another site
by the browser's own word. API keys travel in a header that no foreign page can set, so they need no token.
"""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsp.console.access import Identity
from dsp.console.errors import ApiError
from dsp.console.services import Services

COOKIE = "dsp_session"
LANGUAGE = "dsp_language"
LANGUAGES = {"en": "en", "zh": "zh-CN"}
MOST_BYTES = 1 << 20
MOST_ID = 2**53  # of what addresses name; databases take no more than 2**63
_SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: https:; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer browsers send `origin: null` for our own forms, too
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: bodies above `MOST_BYTES` are refused before they are read; every answer has `HEADERS`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                own = {k for k, _ in headers}  # the preview of an ad is stricter with itself
                headers += [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                if not any(k == b"cache-control" for k, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        if not declared.isdigit() or int(declared) > MOST_BYTES:
            await error_response(_too_large())(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


def _too_large() -> ApiError:
    return ApiError(413, "too_large", f"a body may have {MOST_BYTES} bytes at most")


async def body_of(request: Request) -> bytes:
    """The whole body. Raises 413 as soon as it is too long, whatever its header said."""
    parts, n = [], 0
    async for part in request.stream():
        n += len(part)
        if n > MOST_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def error_response(error: ApiError) -> Response:
    """The envelope."""
    headers = {"retry-after": str(error.retry_s)} if error.retry_s else {}
    return Response(error.body(), error.status, headers, "application/json")


def language_of(request: Request) -> str:
    """The reader's language, of `LANGUAGES`: as chosen in a page, else as the browser prefers, else English."""
    asked = request.query_params.get("lang") or request.cookies.get(LANGUAGE, "")
    preferred = "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"
    return asked if asked in LANGUAGES else preferred


def identify(services: Services, request: Request) -> Identity | None:
    """Who is asking, by key or cookie; None for nobody. Raises 401 for a wrong key."""
    given = request.headers.get("authorization")
    if given is not None:
        kind, _, secret = given.partition(" ")
        identity = services.accounts.by_key(secret.strip()) if kind.lower() == "bearer" else None
        if identity is None:
            raise ApiError(401, "key", "that API key is not valid; send `authorization: Bearer dsp_...`")
        return identity
    cookie = request.cookies.get(COOKIE, "")
    return services.accounts.by_session(cookie) if cookie else None


def check_csrf(request: Request, identity: Identity, token: str) -> None:
    """Raise 403 for an unsafe request that the session's own pages did not make."""
    if request.method in _SAFE or identity.via != "session":
        return
    check_origin(request)
    if not hmac.compare_digest(token.encode("utf-8", "replace"), identity.csrf.encode()):
        raise ApiError(403, "csrf", "the page is too old or not ours; load it again and repeat")


def check_origin(request: Request) -> None:
    """Raise 403 for a request that the browser says another site has made."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if site not in ("same-origin", "none") or (origin and origin.partition("://")[2] != request.headers.get("host")):
        raise ApiError(403, "csrf", "the request came from another site")


def set_session(response: Response, secret: str, request: Request, age_s: int) -> None:
    """The session's cookie: not for scripts, not for other sites."""
    secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    response.set_cookie(COOKIE, secret, max_age=age_s, httponly=True, samesite="lax", secure=secure, path="/")


def address_of(request: Request) -> str:
    """The peer's network address."""
    client: Any = request.client
    return client.host if client is not None else ""
