"""Coming in and leaving: sign-in, one-time links, sign-out."""

from __future__ import annotations

from starlette.responses import Response

from dsp.console.accounts import SESSION_S
from dsp.console.edge import COOKIE, address_of, check_origin, set_session
from dsp.console.errors import ApiError
from dsp.console.pages.page import Page, see


def _signed_in(page: Page, secret: str) -> Response:
    response = see("/")
    set_session(response, secret, page.request, SESSION_S)
    return response


def sign_in_page(page: Page) -> Response:
    """GET /sign-in."""
    return page.show("sign_in.html")


def sign_in(page: Page) -> Response:
    """POST /sign-in."""
    check_origin(page.request)
    email, password, code = (page.form.get(name, "") for name in ("email", "password", "code"))
    try:
        secret = page.services.accounts.sign_in(email, password, code, address_of(page.request))
    except ApiError as error:
        return page.show("sign_in.html", error.status, problem=error.problem, form={"email": email})
    return _signed_in(page, secret)


def enter_page(page: Page) -> Response:
    """GET /enter: a link changes nothing until its button is pressed, so that previews don't use it up."""
    token = page.request.query_params.get("token", "")
    return page.show("enter.html", token=token, purpose=page.services.accounts.link_purpose(token))


def enter(page: Page) -> Response:
    """POST /enter."""
    check_origin(page.request)
    token, email = page.form.get("token", ""), page.form.get("email", "")
    try:
        secret = page.services.accounts.use_link(token, email, page.form.get("password", ""))
    except ApiError as error:
        purpose = page.services.accounts.link_purpose(token)
        values = {"token": token, "purpose": purpose, "form": {"email": email}}
        return page.show("enter.html", error.status, problem=error.problem, **values)
    return _signed_in(page, secret)


def sign_out(page: Page) -> Response:
    """POST /sign-out."""
    page.services.accounts.sign_out(page.person)
    response = see("/sign-in")
    response.delete_cookie(COOKIE)
    return response
