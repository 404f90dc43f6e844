"""Users and their roles, one's own API keys and one-time codes."""

from __future__ import annotations

import segno
from markupsafe import Markup
from starlette.responses import Response

from dsp.console.access import ADMIN, ALL, ROLES, SCOPES
from dsp.console.errors import ApiError, invalid
from dsp.console.models import ListQuery
from dsp.console.pages.page import Page, see, wrong_fields


def users(page: Page, error: ApiError | None = None) -> Response:
    """GET /users."""
    if not page.person.may_anywhere(ADMIN):
        page.person.require(ADMIN, ALL)
    advertisers, _ = page.services.catalog.page(page.person, "advertiser", ListQuery(limit=500))
    return page.show(
        "users.html", error.status if error else 200, problem=error.problem if error else None,
        wrong=wrong_fields(error) if error else {}, form=page.form, roles=list(ROLES), advertisers=advertisers,
        users=page.services.accounts.users(page.person)[0], everything=page.person.may(ADMIN, ALL),
        names={str(a["id"]): a["name"] for a in advertisers},
    )  # fmt: skip


def add_user(page: Page) -> Response:
    """POST /users."""
    try:
        if not page.form.get("password"):
            raise invalid("password", "is empty")
        at = page.form.get("advertiser_id", "")
        roles = {int(at) if at.isascii() and at.isdecimal() and len(at) < 16 else ALL: page.form.get("role", "")}
        page.services.accounts.add_user(page.person, page.form.get("email", ""), page.form["password"], roles)
    except ApiError as error:
        if error.status == 403:
            raise
        return users(page, error)
    return see("/users", "user")


def keys(page: Page, error: ApiError | None = None, secret: str = "") -> Response:
    """GET /keys."""
    return page.show(
        "keys.html", error.status if error else 200, problem=error.problem if error else None,
        wrong=wrong_fields(error) if error else {}, form=page.form, keys=page.services.accounts.keys(page.person),
        scopes=[s for s in SCOPES if page.person.may_anywhere(s)], chosen=page.fields.get("scopes", ()), secret=secret,
    )  # fmt: skip


def add_key(page: Page) -> Response:
    """POST /keys: the answer, and no later one, shows the secret."""
    name = page.form.get("name", "").strip()
    try:
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise invalid("name", "write 1 to 200 visible characters")
        _, secret = page.services.accounts.add_key(page.person, name, list(page.fields.get("scopes", ())))
    except ApiError as error:
        return keys(page, error)
    page.form = {}
    return keys(page, secret=secret)


def revoke_key(page: Page) -> Response:
    """POST /keys/ID/revoke."""
    page.services.accounts.revoke_key(page.person, page.ref)
    return see("/keys", "revoked")


def security(page: Page, error: ApiError | None = None) -> Response:
    """GET /security: a fresh secret as a picture; nothing is kept until a code of it is typed."""
    secret, uri = page.services.accounts.new_totp(page.person)
    picture = segno.make(uri, error="m").svg_inline(scale=4, border=2, omitsize=True, svgclass="qr", title="QR")
    return page.show(
        "security.html", error.status if error else 200, problem=error.problem if error else None,
        wrong=wrong_fields(error) if error else {}, secret=secret, picture=Markup(picture),
    )  # fmt: skip


def confirm_totp(page: Page) -> Response:
    """POST /security."""
    try:
        page.services.accounts.confirm_totp(page.person, page.form.get("secret", ""), page.form.get("code", ""))
    except ApiError as error:
        return security(page, error)
    return see("/security", "totp")
