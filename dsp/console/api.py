"""The REST API: one table of operations, from which both the routes and the OpenAPI document are made.

Every operation is: who may, typed query and body in, typed answer out. POSTs take an ``idempotency-key``; PATCHes and
archiving need ``if-match`` with the ETag of what was read (or ``*``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import select

from dsp.console import (
    audiences,
    bulking,
    creatives,
    experiments,
    history,
    library,
    models,
    reporting,
    reviewing,
    tables,
)
from dsp.console.access import Identity
from dsp.console.catalog import etag_of
from dsp.console.errors import ApiError, invalid
from dsp.console.operation import ANYONE, Call, Operation, Reply, given, shown
from dsp.console.services import Services
from dsp.console.transaction import changing

PREFIX = "/api/v1"
_KEEP_S = 86_400


def _crud(kind: str, path: str) -> list[Operation]:
    name = kind.replace("_", " ")

    def listed(call: Call) -> Reply:
        items, more = call.services.catalog.page(call.by, kind, call.query)
        return Reply({"items": items, "next": more})

    def made(call: Call) -> Reply:
        return shown(call.services.catalog.create(call.by, kind, given(call.body)), 201)

    def got(call: Call) -> Reply:
        return shown(call.services.catalog.get(call.by, kind, call.ref))

    def changed(call: Call) -> Reply:
        return shown(call.services.catalog.change(call.by, kind, call.ref, given(call.body), call.etag))

    def status(value: str, action: str) -> Callable[[Call], Reply]:
        def run(call: Call) -> Reply:
            changes = {"status": value}
            return shown(call.services.catalog.change(call.by, kind, call.ref, changes, call.etag or "*", action))

        return run

    def archived(call: Call) -> Reply:
        return shown(call.services.catalog.archive(call.by, kind, call.ref, call.etag))

    view, one = models.VIEW[kind], f"{path}/{{id}}"
    found = [
        Operation("GET", path, f"List {name}s", listed, models.PAGE[kind], models.ListQuery),
        Operation(
            "POST", path, f"Make a {name}", made, view, body=models.NEW[kind], status=201, errors=(404, 409, 422)
        ),
        Operation("GET", one, f"Read a {name}", got, view, errors=(404,)),
        Operation(
            "PATCH", one, f"Change a {name}; bidders obey within two seconds", changed, view, body=models.CHANGE[kind],
            match=True, errors=(404, 409, 412, 422, 428),
        ),
    ]  # fmt: skip
    if kind != "advertiser":
        found += [
            Operation(
                *("POST", f"{one}/pause", f"Pause a {name}", status("paused", "pause"), view), tagged=True,
                errors=(404, 409, 412, 422),
            ),
            Operation(
                *("POST", f"{one}/resume", f"Resume a {name}", status("active", "resume"), view), tagged=True,
                errors=(404, 409, 412, 422),
            ),
            Operation(
                *("POST", f"{one}/archive", f"Archive a {name} for good", archived, view),
                match=True, errors=(404, 409, 412, 428),
            ),
        ]  # fmt: skip
    return found


def _references(call: Call) -> Reply:
    return Reply(call.services.catalog.references(call.by))


def _changes(call: Call) -> Reply:
    items, more = history.changes(call.services.catalog, call.by, call.query)
    return Reply(models.ChangePage(items, more))


def _undo(call: Call) -> Reply:
    value = history.undo(call.services.catalog, call.by, call.ref)
    ref = next((v for v in (value.get("id"), value.get("number")) if isinstance(v, int)), 0)
    return Reply(models.Made(ref), 200, etag_of(value))


def _me(call: Call) -> Reply:
    roles = {str(a): role for a, role in call.by.roles.items()}
    return Reply(models.Me(call.by.email, roles, sorted(call.by.scopes)))


def _users(call: Call) -> Reply:
    items, more = call.services.accounts.users(call.by, call.query.after, call.query.limit, call.query.q)
    return Reply({"items": items, "next": more})


def _user(call: Call) -> Reply:
    return shown(call.services.accounts.user(call.by, call.ref))


def _roles(given: dict[str, str]) -> dict[int, str]:
    return {int(a): role for a, role in given.items()}


def _add_user(call: Call) -> Reply:
    body: models.NewUser = call.body
    if not body.password:
        raise invalid("password", "is empty")
    ref = call.services.accounts.add_user(call.by, body.email, body.password, _roles(body.roles))
    return shown(call.services.accounts.user(call.by, ref), 201)


def _change_user(call: Call) -> Reply:
    changes = given(call.body)
    if "roles" in changes:
        changes["roles"] = _roles(changes["roles"])
    return shown(call.services.accounts.change_user(call.by, call.ref, call.etag, **changes))


def _keys(call: Call) -> Reply:
    return Reply({"items": call.services.accounts.keys(call.by)})


def _add_key(call: Call) -> Reply:
    key_id, secret = call.services.accounts.add_key(call.by, call.body.name, call.body.scopes)
    return Reply(models.Key(key_id, call.body.name, sorted(set(call.body.scopes)), False, secret), 201)


def _revoke(call: Call) -> Reply:
    call.services.accounts.revoke_key(call.by, call.ref)
    return Reply(models.Made(call.ref))


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/me", "Who is asking", _me, models.Me, needs=ANYONE),
    *_crud("advertiser", "/advertisers"),
    *_crud("campaign", "/campaigns"),
    *_crud("line_item", "/line-items"),
    *creatives.OPERATIONS,
    *audiences.OPERATIONS,
    *bulking.OPERATIONS,
    *experiments.OPERATIONS,
    *library.OPERATIONS,
    *reviewing.OPERATIONS,
    Operation("GET", "/references", "Names that line items may refer to", _references, models.References),
    Operation("GET", "/changes", "What changed, newest first", _changes, models.ChangePage, models.AuditQuery),
    Operation("POST", "/changes/{id}/undo", "Undo a change", _undo, models.Made, errors=(404, 409, 412, 422)),
    *reporting.OPERATIONS,
    Operation("GET", "/users", "List users", _users, models.UserPage, models.UserQuery, needs="admin"),
    Operation("POST", "/users", "Make a user", _add_user, models.User, body=models.NewUser, status=201,
              errors=(409, 422), needs="admin"),
    Operation("GET", "/users/{id}", "Read a user", _user, models.User, errors=(404,), needs="admin"),
    Operation("PATCH", "/users/{id}", "Give roles, take them, disable, set a new password", _change_user, models.User,
              body=models.ChangeUser, match=True, errors=(404, 409, 412, 422, 428), needs="admin"),
    Operation("GET", "/keys", "List one's own API keys", _keys, models.KeyList, needs=ANYONE),
    Operation("POST", "/keys", "Make an API key; its secret is in this answer alone", _add_key, models.Key,
              body=models.NewKey, status=201, errors=(422,), needs=ANYONE),
    Operation("POST", "/keys/{id}/revoke", "Revoke an API key", _revoke, models.Made, errors=(404,), needs=ANYONE),
)  # fmt: skip


def permitted(operation: Operation, by: Identity) -> None:
    """What can be told before looking: a key's scope, a role anywhere. Raises 403."""
    needs = operation.needs or ("read" if operation.method == "GET" else "write")
    if operation.path.startswith("/keys") and by.via == "key" and operation.method != "GET":
        raise ApiError(403, "forbidden", "API keys are made and revoked by a signed-in person")
    if needs != ANYONE and not by.may_anywhere(needs):
        by.require(needs, 0)


def parse(operation: Operation, query: dict[str, str], body: bytes) -> tuple[Any, Any]:
    """Query and body as their types. Raises 400 and 422."""
    try:
        asked = msgspec.convert(query, operation.query, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(400, "query", str(error)) from None
    if operation.body is None:
        return asked, None
    try:
        return asked, msgspec.json.decode(body, type=operation.body)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        raise invalid(where.rstrip("`").lstrip(".") or "body", text) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "json", f"the body is not JSON: {error}") from None


def once(services: Services, by: Identity, key: str, request: bytes, run: Callable[[], tuple[int, bytes]]) -> Any:
    """The answer that ``key`` got before, or a fresh one that is kept for it. Raises 422 for a key of another request.

    The change and its key are one transaction: a process that dies between them leaves neither, and of two at once the
    second waits for the first and gets its answer. A refusal is not kept.
    """
    if not key.isascii() or len(key) > 200:
        raise invalid("idempotency-key", "write at most 200 ASCII characters")
    t, hashed = tables.idempotency, hashlib.sha256(request).hexdigest()
    mine = (t.c.user_id == by.user_id) & (t.c.key == key)
    with changing(services.catalog.engine) as connection:
        now_s = int(services.catalog.clock())
        connection.execute(t.delete().where(mine, t.c.time_s < now_s - _KEEP_S))
        found = connection.execute(select(t).where(mine)).first()
        if found is not None:
            if found.request != hashed:
                raise invalid("idempotency-key", "was used for another request; choose a new one")
            return found.status, found.body.encode()
        status, body = run()
        kept = {"user_id": by.user_id, "key": key, "request": hashed, "status": status, "body": body.decode()}
        connection.execute(t.insert().values(**kept, time_s=now_s))
    return status, body
