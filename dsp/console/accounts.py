"""Users and the ways they prove who they are: password and TOTP, one-time link, session cookie, API key.

A secret is handed out once and kept as a hash. Unknown name and wrong password take the same time and give the same
answer. The first owner is made through a link that only whoever started the server has seen.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Engine, delete, func, select, update

from dsp.console import tables
from dsp.console.access import ALL, ROLES, SCOPES, Identity
from dsp.console.audit import record
from dsp.console.catalog import Shown, etag_of
from dsp.console.errors import ApiError, invalid, not_found
from dsp.console.throttle import Throttle
from dsp.console.transaction import changing, reading

SESSION_S = 12 * 3600
LINK_S = 24 * 3600
MIN_PASSWORD = 12
_KEY_PREFIX = "dsp_"
_STEP_S = 30
_WRONG = "that e-mail address, password or code is wrong; try again"


class Accounts:
    """Accounts of one catalog database. ``clock``: unix seconds; ``hasher``: argon2id at the library's own cost."""

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, hasher: PasswordHasher | None = None
    ) -> None:
        tables.create(engine)
        self.engine, self.clock = engine, clock
        self.throttle = Throttle()
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())

    # --- sign-in -----------------------------------------------------------------------------------------------------

    def has_users(self) -> bool:
        """False until the first owner is made."""
        with self.engine.connect() as connection:
            return connection.execute(select(tables.user.c.id).limit(1)).first() is not None

    def first_owner(self) -> Identity | None:
        """Who owns everything and came first; None on a system without one."""
        user, role = tables.user.c, tables.membership.c
        query = select(user.id, user.email).join(tables.membership, role.user_id == user.id)
        query = query.where(role.advertiser_id == ALL, role.role == "owner").order_by(user.id)
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Identity(int(row.id), str(row.email), {ALL: "owner"})

    def make_link(self, email: str = "") -> str:
        """A one-time token: it signs ``email`` in (empty: the first owner), or makes the first owner where none is."""
        with changing(self.engine) as connection:
            query = select(tables.user.c.id).order_by(tables.user.c.id)
            if email:
                query = query.where(tables.user.c.email == email.lower())
            found = connection.execute(query.limit(1)).scalar()
            if found is None and email:
                raise not_found("user")
            token = secrets.token_urlsafe(32)
            values = {"hash": digest(token), "user_id": found or 0, "expires_s": int(self.clock()) + LINK_S}
            connection.execute(tables.link.insert().values(**values))
        return token

    def link_purpose(self, token: str) -> str:
        """ "setup", "sign in", or "" for a token that is used, too old or was never made."""
        with self.engine.connect() as connection:
            row = connection.execute(select(tables.link).where(tables.link.c.hash == digest(token))).first()
        if row is None or row.expires_s < self.clock() or (row.user_id == 0 and self.has_users()):
            return ""
        return "sign in" if row.user_id else "setup"

    def use_link(self, token: str, email: str = "", password: str = "") -> str:
        """Sign in with a link; a new session's secret. For the first owner, ``email`` and ``password`` are set."""
        if not self.link_purpose(token):
            raise ApiError(403, "link", "this link was used or is too old; `dsp console link` makes another")
        with changing(self.engine) as connection:
            row = connection.execute(select(tables.link).where(tables.link.c.hash == digest(token))).first()
            if row is None:
                raise ApiError(403, "link", "this link was used already; `dsp console link` makes another")
            user_id = row.user_id
            if not user_id:
                user_id = self._add(connection, email, password, {ALL: "owner"})
                record(connection, self.clock(), email, "link", "create", "user", user_id)
            connection.execute(delete(tables.link).where(tables.link.c.hash == digest(token)))
            return self._open(connection, user_id, "link")

    def sign_in(self, email: str, password: str, code: str, address: str) -> str:
        """A new session's secret. Raises 401, or 429 after too many tries."""
        email, now_s = email.strip().lower()[:200], self.clock()
        self.throttle.check(email, address, now_s)
        with self.engine.connect() as connection:
            row = connection.execute(select(tables.user).where(tables.user.c.email == email)).first()
        good = self._verify(row.password if row is not None else self._nobody, password)
        if not good or row is None or row.disabled:
            self.throttle.failed(email, address, now_s)
            raise ApiError(401, "credentials", _WRONG)
        with changing(self.engine) as connection:
            if row.totp:
                last = connection.execute(select(tables.user.c.totp_step).where(tables.user.c.id == row.id)).scalar()
                step = _step_of(row.totp, code, now_s)
                if step is None or step <= int(last or 0):
                    self.throttle.failed(email, address, now_s)
                    raise ApiError(401, "credentials", _WRONG)
                connection.execute(update(tables.user).where(tables.user.c.id == row.id).values(totp_step=step))
            self.throttle.succeeded(email)
            return self._open(connection, row.id, "password")

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored or self._nobody, password[:1000]) and bool(stored)
        except (VerificationError, InvalidHashError):
            return False

    def _open(self, connection: Connection, user_id: int, how: str) -> str:
        secret, now_s = secrets.token_urlsafe(32), int(self.clock())
        connection.execute(delete(tables.session).where(tables.session.c.expires_s < now_s))
        values = {"user_id": user_id, "csrf": secrets.token_urlsafe(32), "expires_s": now_s + SESSION_S}
        connection.execute(tables.session.insert().values(hash=digest(secret), **values))
        email = connection.execute(select(tables.user.c.email).where(tables.user.c.id == user_id)).scalar_one()
        record(connection, now_s, email, how, "sign in", "user", user_id)
        return secret

    def sign_out(self, identity: Identity) -> None:
        """End the session."""
        with changing(self.engine) as connection:
            connection.execute(delete(tables.session).where(tables.session.c.hash == identity.session))

    def by_session(self, secret: str) -> Identity | None:
        """Whose session it is, if it is alive."""
        return self._identity(tables.session, secret)

    def by_key(self, secret: str) -> Identity | None:
        """Whose API key it is, if it is valid."""
        return self._identity(tables.api_key, secret) if secret.startswith(_KEY_PREFIX) else None

    def _identity(self, table: Any, secret: str) -> Identity | None:
        hashed = digest(secret)
        with self.engine.connect() as connection:
            query = select(table, tables.user.c.email, tables.user.c.disabled).join(
                tables.user, tables.user.c.id == table.c.user_id
            )
            row = connection.execute(query.where(table.c.hash == hashed)).first()
            if row is None or row.disabled:
                return None
            m = tables.membership
            roles = {r.advertiser_id: r.role for r in connection.execute(select(m).where(m.c.user_id == row.user_id))}
        if table is tables.session:
            if row.expires_s < self.clock():
                return None
            return Identity(row.user_id, row.email, roles, csrf=row.csrf, session=hashed)
        if row.revoked:
            return None
        return Identity(row.user_id, row.email, roles, frozenset(row.scopes.split(",")), "key")

    # --- users -------------------------------------------------------------------------------------------------------

    def add_user(self, by: Identity, email: str, password: str, roles: dict[int, str]) -> int:
        """A new user; the id. Whoever makes it must be allowed to, and may give no more than an admin's role."""
        self._may_give(by, roles)
        with changing(self.engine) as connection:
            user_id = self._add(connection, email, password, roles)
            after = {"email": email, "roles": {str(a): role for a, role in roles.items()}}
            record(connection, self.clock(), by.email, by.via, "create", "user", user_id, after=after)
        return user_id

    def add_owner(self, email: str) -> int:
        """An owner without a password, who signs in by link: the demo's."""
        with changing(self.engine) as connection:
            return self._add(connection, email, "", {ALL: "owner"})

    @staticmethod
    def _may_give(by: Identity, roles: dict[int, str]) -> None:
        if not roles:
            raise invalid("roles", "give at least one role")
        for advertiser_id, role in roles.items():
            by.require("admin", advertiser_id)
            if role not in ROLES:
                raise invalid("roles", f"unknown role {role!r}; write one of {', '.join(ROLES)}")
            if role == "owner" and by.roles.get(ALL) != "owner":
                raise ApiError(403, "forbidden", "only an owner of everything can make another owner")

    def _add(self, connection: Connection, email: str, password: str, roles: dict[int, str]) -> int:
        email = email.strip().lower()
        if not 3 <= len(email) <= 200 or "@" not in email or not email.isprintable() or " " in email:
            raise invalid("email", "not an e-mail address; write name@bank.example")
        if password:
            _good(password)
        if not password and connection.execute(select(func.count()).select_from(tables.user)).scalar_one():
            raise invalid("password", f"must have at least {MIN_PASSWORD} characters")
        if connection.execute(select(tables.user.c.id).where(tables.user.c.email == email)).first():
            raise ApiError(409, "exists", "a user with that e-mail address exists already")
        values = {"email": email, "password": self._hasher.hash(password) if password else "", "totp": ""}
        done = connection.execute(
            tables.user.insert().values(**values, totp_step=0, disabled=False, created_s=int(self.clock()))
        )
        user_id = int(done.inserted_primary_key[0]) if done.inserted_primary_key else 0
        _set_roles(connection, user_id, roles)
        return user_id

    def users(self, by: Identity, after: int = 0, limit: int = 500, q: str = "") -> tuple[list[Shown], int | None]:
        """Users and roles, as far as ``by`` administers their advertisers; the id to go on after."""
        u, m = tables.user.c, tables.membership.c
        mine = by.advertisers("admin")
        wanted = select(tables.user).where(u.id > after).order_by(u.id).limit(limit + 1)
        if mine is not None:
            wanted = wanted.where(u.id.in_(select(m.user_id).where(m.advertiser_id.in_(mine))))
        if q:
            wanted = wanted.where(u.email.icontains(q, autoescape=True))
        with reading(self.engine) as connection:
            rows = connection.execute(wanted).all()
            roles = _roles(connection, [row.id for row in rows])
        more = rows[limit - 1].id if len(rows) > limit else None
        return [_shown(row, roles.get(row.id, {}), mine) for row in rows[:limit]], more

    def user(self, by: Identity, user_id: int) -> Shown:
        """One of them. Raises 404."""
        mine = by.advertisers("admin")
        with reading(self.engine) as connection:
            row = connection.execute(select(tables.user).where(tables.user.c.id == user_id)).first()
            roles = _roles(connection, [user_id]).get(user_id, {})
        if row is None or (mine is not None and not mine & roles.keys()):
            raise not_found("user")
        return _shown(row, roles, mine)

    def change_user(
        self, by: Identity, user_id: int, etag: str, *, roles: dict[int, str] | None = None,
        disabled: bool | None = None, password: str | None = None,
    ) -> Shown:  # fmt: skip
        """Roles (as far as ``by`` administers), whether it may come in, a password. Raises 403, 404, 409, 412, 422."""
        with changing(self.engine) as connection:
            before, owners = self.user(by, user_id), _owners(connection)
            if etag not in ("*", etag_of(before)):
                raise ApiError(412, "stale", "someone changed it since you read it; read it again, then change it")
            have = _roles(connection, [user_id]).get(user_id, {})
            values: dict[str, Any] = {}
            if disabled is not None or password is not None:
                self._may_give(by, have)  # who comes in at all is up to who administers all that the user may see
            if disabled is not None:
                values["disabled"] = disabled
            if password is not None:
                values["password"] = self._hasher.hash(_good(password))
            if roles is not None:
                mine = by.advertisers("admin")
                kept = {a: role for a, role in have.items() if mine is not None and a not in mine}
                if roles or not kept:
                    self._may_give(by, roles)
                self._may_give_up(by, {a: role for a, role in have.items() if a not in kept and roles.get(a) != role})
                _set_roles(connection, user_id, {**kept, **roles})
            if values:
                connection.execute(update(tables.user).where(tables.user.c.id == user_id).values(**values))
            if disabled or password is not None:
                connection.execute(delete(tables.session).where(tables.session.c.user_id == user_id))
            if owners and not _owners(connection):
                raise ApiError(
                    409, "last_owner", "that would leave nobody who owns this system; make another owner first"
                )
            after = self.user(by, user_id)
            told = {**after, "password": "changed"} if password is not None else after
            record(connection, self.clock(), by.email, by.via, "change", "user", user_id, before=before, after=told)
            return after

    @staticmethod
    def _may_give_up(by: Identity, roles: dict[int, str]) -> None:
        if "owner" in roles.values() and by.roles.get(ALL) != "owner":
            raise ApiError(403, "forbidden", "only an owner of everything can take an owner's role away")

    def new_totp(self, by: Identity) -> tuple[str, str]:
        """A fresh secret and its ``otpauth`` URI; it is asked for once `confirm_totp` has seen a code of it."""
        secret = pyotp.random_base32()
        return secret, pyotp.TOTP(secret).provisioning_uri(name=by.email, issuer_name="dsp")

    def confirm_totp(self, by: Identity, secret: str, code: str) -> None:
        """Ask for codes of ``secret`` from now on."""
        try:
            step = _step_of(secret, code, self.clock())
        except ValueError:
            step = None
        if step is None:
            raise invalid("code", "that code does not match; scan the picture again and type the six digits")
        with changing(self.engine) as connection:
            done = update(tables.user).where(tables.user.c.id == by.user_id).values(totp=secret, totp_step=step)
            connection.execute(done)
            record(connection, self.clock(), by.email, by.via, "totp", "user", by.user_id)

    # --- API keys ----------------------------------------------------------------------------------------------------

    def add_key(self, by: Identity, name: str, scopes: list[str]) -> tuple[int, str]:
        """A key with ``scopes`` and the maker's roles: (id, the secret, which is never shown again)."""
        for scope in scopes:
            if scope not in SCOPES:
                raise invalid("scopes", f"unknown scope {scope!r}; write some of {', '.join(SCOPES)}")
            if scope not in by.scopes:
                raise ApiError(403, "forbidden", f"a key can't give the scope {scope!r}, which this one lacks")
        if not scopes:
            raise invalid("scopes", f"write some of {', '.join(SCOPES)}")
        secret = _KEY_PREFIX + secrets.token_urlsafe(32)
        values = {"user_id": by.user_id, "name": name, "scopes": ",".join(sorted(set(scopes))), "revoked": False}
        with changing(self.engine) as connection:
            done = connection.execute(
                tables.api_key.insert().values(hash=digest(secret), created_s=int(self.clock()), **values)
            )
            key_id = int(done.inserted_primary_key[0]) if done.inserted_primary_key else 0
            after = {"name": name, "scopes": scopes}
            record(connection, self.clock(), by.email, by.via, "create", "api key", key_id, after=after)
        return key_id, secret

    def keys(self, by: Identity) -> list[dict[str, Any]]:
        """The user's own keys, without their secrets."""
        k = tables.api_key
        with self.engine.connect() as connection:
            rows = connection.execute(select(k).where(k.c.user_id == by.user_id).order_by(k.c.id)).all()
        return [{"id": r.id, "name": r.name, "scopes": r.scopes.split(","), "revoked": r.revoked} for r in rows]

    def revoke_key(self, by: Identity, key_id: int) -> None:
        """End a key of the user's own."""
        k = tables.api_key
        with changing(self.engine) as connection:
            mine = (k.c.id == key_id) & (k.c.user_id == by.user_id)
            if not connection.execute(update(k).where(mine).values(revoked=True)).rowcount:
                raise not_found("API key")
            record(connection, self.clock(), by.email, by.via, "revoke", "api key", key_id)


def _good(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= 1000:
        raise invalid("password", f"must have at least {MIN_PASSWORD} characters")
    return password


def _roles(connection: Connection, users: Sequence[int]) -> dict[int, dict[int, str]]:
    found: dict[int, dict[int, str]] = {}
    for row in connection.execute(select(tables.membership).where(tables.membership.c.user_id.in_(users))):
        found.setdefault(row.user_id, {})[row.advertiser_id] = row.role
    return found


def _set_roles(connection: Connection, user_id: int, roles: Mapping[int, str]) -> None:
    connection.execute(delete(tables.membership).where(tables.membership.c.user_id == user_id))
    for advertiser_id, role in roles.items():
        role_of = {"user_id": user_id, "advertiser_id": advertiser_id, "role": role}
        connection.execute(tables.membership.insert().values(**role_of))


def _owners(connection: Connection) -> int:
    u, m = tables.user.c, tables.membership.c
    query = select(func.count()).select_from(tables.membership.join(tables.user, u.id == m.user_id))
    alive = query.where(m.advertiser_id == ALL, m.role == "owner", ~u.disabled)
    return int(connection.execute(alive).scalar_one())


def _shown(row: Any, roles: Mapping[int, str], mine: frozenset[int] | None) -> Shown:
    seen = {str(a): role for a, role in sorted(roles.items()) if mine is None or a in mine}
    return {"id": row.id, "email": row.email, "disabled": row.disabled, "totp": bool(row.totp), "roles": seen}


def digest(secret: str) -> str:
    """A secret as it is kept: random and long, so one hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _step_of(secret: str, code: str, now_s: float) -> int | None:
    """The 30-second step of which ``code`` is, now or one beside it; None if of none."""
    totp = pyotp.TOTP(secret)
    now = int(now_s // _STEP_S)
    typed = code.replace(" ", "")[:12].encode("utf-8", "replace")
    for step in (now - 1, now, now + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), typed):
            return step
    return None
