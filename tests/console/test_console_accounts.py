"""Getting in: passwords, codes, links, keys; and what is refused on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from console_names import OWNER, PASSWORD
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from starlette.testclient import TestClient

from dsp.console.audit import verify
from dsp.console.errors import ApiError
from dsp.console.services import Services
from dsp.console.throttle import TRIES, WINDOW_S


def status_of(call: Callable[..., Any], *arguments: Any) -> int:
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value.status


def test_the_first_link_makes_the_owner_once(services: Services) -> None:
    accounts = services.accounts
    first, second = accounts.make_link(), accounts.make_link()
    assert accounts.link_purpose(first) == "setup"
    assert status_of(accounts.use_link, first, "me@bank.example", "short") == 422
    identity = accounts.by_session(accounts.use_link(first, "me@bank.example", PASSWORD))
    assert identity is not None
    assert identity.roles == {0: "owner"}
    assert status_of(accounts.use_link, first, "me@bank.example", PASSWORD) == 403
    assert status_of(accounts.use_link, second, "thief@bank.example", PASSWORD) == 403  # there is an owner now


def test_a_link_is_too_old_after_a_day(services: Services, clock: Any) -> None:
    token = services.accounts.make_link()
    clock.now_s += 86_401
    assert services.accounts.link_purpose(token) == ""
    assert status_of(services.accounts.use_link, token, "me@bank.example", PASSWORD) == 403


def test_guessing_passwords_is_stopped_and_lets_the_owner_back_in_later(services: Services, clock: Any) -> None:
    accounts = services.accounts
    accounts.add_user(OWNER, "me@bank.example", PASSWORD, {0: "admin"})
    for n in range(TRIES):
        assert status_of(accounts.sign_in, "me@bank.example", f"guess number {n}", "", "1.2.3.4") == 401
    assert status_of(accounts.sign_in, "me@bank.example", PASSWORD, "", "1.2.3.4") == 429
    clock.now_s += WINDOW_S
    assert accounts.sign_in("me@bank.example", PASSWORD, "", "1.2.3.4")


def test_an_unknown_name_and_a_wrong_password_are_answered_alike(services: Services) -> None:
    services.accounts.add_user(OWNER, "me@bank.example", PASSWORD, {0: "admin"})
    said = []
    for email in ("me@bank.example", "nobody@bank.example"):
        with pytest.raises(ApiError) as caught:
            services.accounts.sign_in(email, "a wrong password", "", "x")
        said.append(caught.value.body())
    assert said[0] == said[1]


def test_a_code_is_asked_for_and_works_once(services: Services, clock: Any) -> None:
    accounts = services.accounts
    accounts.add_user(OWNER, "me@bank.example", PASSWORD, {0: "admin"})
    identity = accounts.by_session(accounts.sign_in("me@bank.example", PASSWORD, "", "x"))
    assert identity is not None
    secret, uri = accounts.new_totp(identity)
    assert uri.startswith("otpauth://totp/dsp:me%40bank.example")
    assert status_of(accounts.confirm_totp, identity, secret, "000000") == 422
    accounts.confirm_totp(identity, secret, pyotp.TOTP(secret).at(int(clock.now_s)))
    clock.now_s += 60
    code = pyotp.TOTP(secret).at(int(clock.now_s))
    assert status_of(accounts.sign_in, "me@bank.example", PASSWORD, "", "x") == 401
    assert accounts.sign_in("me@bank.example", PASSWORD, code, "x")
    assert status_of(accounts.sign_in, "me@bank.example", PASSWORD, code, "x") == 401


def test_sessions_end(services: Services, clock: Any) -> None:
    accounts = services.accounts
    accounts.add_user(OWNER, "me@bank.example", PASSWORD, {0: "admin"})
    out, old = (accounts.sign_in("me@bank.example", PASSWORD, "", "x") for _ in range(2))
    identity = accounts.by_session(out)
    assert identity is not None
    accounts.sign_out(identity)
    assert accounts.by_session(out) is None
    assert accounts.by_session(old) is not None
    clock.now_s += 13 * 3600
    assert accounts.by_session(old) is None


def test_a_key_does_what_its_scopes_allow_and_its_secret_is_shown_once(owner: TestClient, anyone: TestClient) -> None:
    made = owner.post("/api/v1/keys", json={"name": "reports", "scopes": ["read"]}).json()
    assert made["secret"].startswith("dsp_")
    assert made["secret"] not in owner.get("/api/v1/keys").text
    bearer = {"authorization": f"Bearer {made['secret']}"}
    assert anyone.get("/api/v1/campaigns", headers=bearer).status_code == 200
    paused = anyone.post("/api/v1/campaigns/1/pause", headers=bearer)
    assert paused.status_code == 403
    assert anyone.get("/api/v1/reports", headers=bearer).status_code == 403
    assert anyone.post("/api/v1/keys", headers=bearer, json={"name": "x", "scopes": ["write"]}).status_code == 403
    owner.post(f"/api/v1/keys/{made['id']}/revoke")
    assert anyone.get("/api/v1/campaigns", headers=bearer).status_code == 401


def test_nothing_secret_is_in_the_database(services: Services) -> None:
    link = services.accounts.make_link()
    session = services.accounts.use_link(link, "me@bank.example", PASSWORD)
    identity = services.accounts.by_session(session)
    assert identity is not None
    _, key = services.accounts.add_key(identity, "k", ["read"])
    with services.catalog.engine.connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        dump = str([connection.execute(text(f"SELECT * FROM {t}")).all() for t in tables])
    for secret in (link, session, key, PASSWORD):
        assert secret not in dump


def test_the_audit_log_cannot_be_edited(owner: TestClient, services: Services) -> None:
    owner.post("/api/v1/campaigns/1/pause")
    engine = services.catalog.engine
    for statement in ("UPDATE console_audit SET who = 'x'", "DELETE FROM console_audit"):
        with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    assert verify(engine) >= 2
    with engine.begin() as connection:  # even by someone who takes the triggers off first
        connection.execute(text("DROP TRIGGER console_audit_update"))
        connection.execute(text("UPDATE console_audit SET who = 'x' WHERE id = 1"))
    with pytest.raises(ValueError, match="row 1 does not follow"):
        verify(engine)


def test_a_user_is_changed_disabled_and_let_in_again(owner: TestClient, services: Services, anyone: TestClient) -> None:
    new = {"email": "t@bank.example", "password": PASSWORD, "roles": {"1": "analyst"}}
    made = owner.post("/api/v1/users", json=new)
    one = f"/api/v1/users/{made.json()['id']}"
    etag = made.headers["etag"]
    given = owner.patch(one, json={"roles": {"1": "trader", "2": "analyst"}}, headers={"if-match": etag})
    assert given.json()["roles"] == {"1": "trader", "2": "analyst"}
    assert owner.patch(one, json={"roles": {}}, headers={"if-match": etag}).status_code == 412
    session = services.accounts.sign_in("t@bank.example", PASSWORD, "", "x")
    assert owner.patch(one, json={"disabled": True}, headers={"if-match": "*"}).json()["disabled"] is True
    assert services.accounts.by_session(session) is None
    assert status_of(services.accounts.sign_in, "t@bank.example", PASSWORD, "", "x") == 401
    again = {"disabled": False, "password": "a new password of mine"}
    assert owner.patch(one, json=again, headers={"if-match": "*"}).status_code == 200
    assert services.accounts.sign_in("t@bank.example", "a new password of mine", "", "x")
    assert "a new password" not in owner.get("/api/v1/changes").text
    found = owner.get("/api/v1/users", params={"q": "t@bank", "limit": 1}).json()
    assert [u["email"] for u in found["items"]] == ["t@bank.example"]


def test_the_last_owner_stays(owner: TestClient) -> None:
    me = next(u for u in owner.get("/api/v1/users").json()["items"] if "0" in u["roles"])
    for change in ({"disabled": True}, {"roles": {"0": "admin"}}):
        answer = owner.patch(f"/api/v1/users/{me['id']}", json=change, headers={"if-match": "*"})
        assert answer.json()["error"]["code"] == "last_owner"
    assert owner.get("/api/v1/me").status_code == 200


def test_an_advertisers_admin_changes_only_what_is_its_own(
    owner: TestClient, sign_in: Callable[..., TestClient]
) -> None:
    new = {"email": "t@bank.example", "password": PASSWORD, "roles": {"1": "analyst", "2": "analyst"}}
    one = f"/api/v1/users/{owner.post('/api/v1/users', json=new).json()['id']}"
    admin = sign_in("admin", 2)
    star = {"if-match": "*"}
    assert admin.get(one).json()["roles"] == {"2": "analyst"}
    assert admin.patch(one, json={"roles": {"1": "trader"}}, headers=star).status_code == 403
    assert admin.patch(one, json={"disabled": True}, headers=star).status_code == 403
    assert admin.patch(one, json={"password": "mine from now on"}, headers=star).status_code == 403
    assert admin.patch(one, json={"roles": {"2": "trader"}}, headers=star).status_code == 200
    assert owner.get(one).json()["roles"] == {"1": "analyst", "2": "trader"}
    mine = next(u for u in owner.get("/api/v1/users").json()["items"] if u["roles"] == {"0": "owner"})
    assert admin.get(f"/api/v1/users/{mine['id']}").status_code == 404
    assert (
        sign_in("admin")
        .patch(f"/api/v1/users/{mine['id']}", json={"roles": {"0": "analyst"}}, headers=star)
        .status_code
        == 403
    )
