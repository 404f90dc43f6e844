"""How an exchange shows who it is over HTTP: a bearer token, its client certificate's name, the network it calls from.

The certificate itself is checked where TLS ends, in front of us; what that sets as a header is compared here. Whoever
has been let in by one address and authorization is remembered, so that a request costs two look-ups in a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Protocol

from dsp.ingress.http_rules import shows_token

MAX_SEEN = 4096  # ways of being let in that are remembered, of one exchange


class HeadersOf(Protocol):
    """A request's headers."""

    def get(self, key: str) -> str | None:
        """One header, None without it."""


class Caller(Protocol):
    """Who is at the other end of a connection."""

    @property
    def client(self) -> str:
        """Its "address:port"."""


class Access:
    """What one exchange must show; `refusal` tells what is missing."""

    def __init__(self, token: str, client_header: str, ips: Sequence[str], address_header: str) -> None:
        name, _, value = client_header.partition(":")
        self._token, self._name, self._value = token, name.strip().lower(), value.strip()
        self._networks = [ip_network(text) for text in ips]
        self._address_header = address_header
        self._seen: set[tuple[str | None, str | None, str]] = set()
        self.asks = bool(token or client_header or ips)

    def refusal(self, headers: HeadersOf, caller: Caller) -> str:
        """What is wrong, "" if nothing."""
        given = headers.get("authorization") if self._token else None
        certificate = headers.get(self._name) if self._name else None
        address = self._address(headers, caller) if self._networks else ""
        shown = (given, certificate, address)
        if shown in self._seen:
            return ""
        if self._token and not shows_token(given, self._token):
            return "this exchange needs authorization: Bearer <token>"
        if self._name and certificate != self._value:
            return f"this exchange needs the certificate that {self._name} names"
        if self._networks and not self._inside(address):
            return "this exchange does not call from this address"
        if len(self._seen) < MAX_SEEN:
            self._seen.add(shown)
        return ""

    def _address(self, headers: HeadersOf, caller: Caller) -> str:
        """Who calls: what the nearest proxy says, where there is one, since all before it can be made up."""
        if self._address_header:
            return (headers.get(self._address_header) or "").rpartition(",")[2].strip()
        return caller.client.rpartition(":")[0].strip("[]")

    def _inside(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
