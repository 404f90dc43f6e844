"""The worker's HTTP connection to the ledger: one kept-alive POST /sync at a time, every wait bounded."""

from __future__ import annotations

import http.client

from dsp.control.grants import SyncReply, SyncRequest, decode_reply, encode_request, sign_sync

TIMEOUT_S = 2.0


class HttpTransport:
    """`SyncTransport` over HTTP/1.1; ``key`` authenticates requests to the ledger (`dsp.control.grants.sign_sync`)."""

    def __init__(self, host: str, port: int, key: bytes) -> None:
        self._host, self._port, self._key = host, port, key
        self._connection: http.client.HTTPConnection | None = None

    def sync(self, request: SyncRequest) -> SyncReply:
        """One exchange. Raises OSError when the ledger is away or refuses; the next call connects anew."""
        body = encode_request(request)
        headers = {"content-type": "application/msgpack", "x-dsp-signature": sign_sync(self._key, body)}
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            self._connection.request("POST", "/sync", body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except http.client.HTTPException as error:
            self.close()
            raise OSError(f"ledger at {self._host}:{self._port}: {error!r}") from error
        except OSError:
            self.close()
            raise
        if response.status != 200:
            raise OSError(f"ledger refused the sync: {response.status} {answer[:200]!r}")
        return decode_reply(answer)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
