"""How often someone may try to sign in: counts of failures per name and per address, bounded in number and in time."""

from __future__ import annotations

from collections import OrderedDict

from dsp.console.errors import ApiError

TRIES = 5  # per e-mail address
TRIES_FROM = 30  # per network address: many people may sit behind one
WINDOW_S = 900
_MOST = 10_000


class Throttle:
    """Failures within `WINDOW_S` of the first."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, email: str, address: str, now_s: float) -> None:
        """Raise 429 when either had its tries."""
        for key, most in ((f"e {email}", TRIES), (f"a {address}", TRIES_FROM)):
            since, n = self._failures.get(key, (now_s, 0))
            if now_s - since < WINDOW_S and n >= most:
                wait = int(WINDOW_S - (now_s - since)) + 1
                raise ApiError(429, "too_many_tries", f"too many tries; wait {wait // 60 + 1} minutes", retry_s=wait)

    def failed(self, email: str, address: str, now_s: float) -> None:
        """Count one."""
        for key in (f"e {email}", f"a {address}"):
            since, n = self._failures.pop(key, (now_s, 0))
            if now_s - since >= WINDOW_S:
                since, n = now_s, 0
            self._failures[key] = (since, n + 1)
        while len(self._failures) > _MOST:
            self._failures.popitem(last=False)

    def succeeded(self, email: str) -> None:
        """Forget the name's failures."""
        self._failures.pop(f"e {email}", None)
