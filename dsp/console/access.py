"""Who may do what: a role per advertiser, narrowed by an API key's scopes. The only place that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from dsp.console.errors import ApiError

READ, EDIT, REPORT, ADMIN = "read", "write", "report", "admin"
SCOPES = (READ, EDIT, REPORT, ADMIN)
ROLES: dict[str, frozenset[str]] = {
    "owner": frozenset(SCOPES),
    "admin": frozenset(SCOPES),
    "trader": frozenset((READ, EDIT, REPORT)),
    "analyst": frozenset((READ, REPORT)),
    "reviewer": frozenset((READ,)),
}
ALL = 0  # in place of an advertiser's id


@dataclass(frozen=True)
class Identity:
    """Who is asking. ``roles``: advertiser id (`ALL`: every one) -> role."""

    user_id: int
    email: str
    roles: dict[int, str]
    scopes: frozenset[str] = frozenset(SCOPES)
    via: str = "session"
    csrf: str = ""
    session: str = ""

    def may(self, action: str, advertiser_id: int) -> bool:
        """Whether ``action`` is allowed on what belongs to an advertiser (`ALL`: on what belongs to none)."""
        roles = {self.roles.get(ALL, ""), self.roles.get(advertiser_id, "")}
        return action in self.scopes and any(action in ROLES[role] for role in roles if role)

    def require(self, action: str, advertiser_id: int) -> None:
        """Raise 403 unless `may`."""
        if not self.may(action, advertiser_id):
            raise ApiError(403, "forbidden", f"you may not {action} here; ask an owner or admin for the role or scope")

    def advertisers(self, action: str = READ) -> frozenset[int] | None:
        """The advertisers on which ``action`` is allowed; None: all."""
        if self.may(action, ALL):
            return None
        return frozenset(a for a in self.roles if self.may(action, a))

    def may_anywhere(self, action: str) -> bool:
        """Whether ``action`` is allowed on anything at all."""
        return self.advertisers(action) != frozenset()
