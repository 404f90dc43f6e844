"""A small HTTP/2 and HTTP/1.1 server for the generator's tests: correct by an independent library, odd on request."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings


class TinyServer:
    """Serves each connection in a thread with ``talk(sock, number of the connection)`` until closed."""

    def __init__(self, talk: Callable[[socket.socket, int], None]) -> None:
        self.talk = talk
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.connections = 0
        self.socks: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock:
            try:
                self.talk(sock, number)
            except OSError:
                return

    def __enter__(self) -> TinyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self.threads:
            thread.join(timeout=5)
            assert not thread.is_alive()


class Grpc:
    """``talk`` of a gRPC server: ``answer(body, n) -> (status, message)``, n counts this connection's calls from 1."""

    def __init__(
        self,
        answer: Callable[[bytes, int], tuple[int, bytes]],
        *,
        streams: int = 100,
        goaway_after: int = 0,
        reset_every: int = 0,
        ping: bool = False,
        stingy: bool = False,
        deaf_after: int = 0,
    ) -> None:
        self.answer, self.streams, self.goaway_after, self.reset_every = answer, streams, goaway_after, reset_every
        self.ping, self.stingy, self.deaf_after = ping, stingy, deaf_after
        self.bodies: list[bytes] = []
        self.pongs = 0
        self.most_open = 0

    def __call__(self, sock: socket.socket, _number: int) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        conn.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.streams}
        )
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        calls: dict[int, bytearray] = {}
        done = 0
        while data := sock.recv(65536):
            for event in conn.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    calls[event.stream_id] = bytearray()
                    self.most_open = max(self.most_open, len(calls))
                elif isinstance(event, h2.events.DataReceived):
                    calls[event.stream_id] += event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.PingAckReceived):
                    self.pongs += 1
                elif isinstance(event, h2.events.StreamEnded):
                    done += 1
                    self._end(conn, event.stream_id, bytes(calls.pop(event.stream_id)), done)
                if self.goaway_after and done == self.goaway_after:
                    conn.close_connection()
                    sock.sendall(conn.data_to_send())
                    return
            sock.sendall(conn.data_to_send())

    def _end(self, conn: h2.connection.H2Connection, stream: int, data: bytes, n: int) -> None:
        assert data[0] == 0
        assert int.from_bytes(data[1:5], "big") == len(data) - 5
        self.bodies.append(data[5:])
        if self.ping and n % 3 == 1:
            conn.ping(b"12345678")
        if self.deaf_after and n > self.deaf_after:
            return
        if self.reset_every and n % self.reset_every == 0:
            conn.reset_stream(stream, error_code=11)
            return
        status, message = self.answer(data[5:], n)
        if status:
            conn.send_headers(
                stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status))], True
            )
        else:
            conn.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            conn.send_data(
                stream, b"\0" + len(message).to_bytes(4, "big") + message, pad_length=7 if n % 5 == 0 else None
            )
            conn.send_headers(stream, [("grpc-status", "0"), ("x-more", "y")], True)


def http(answer: Callable[[bytes, int], bytes]) -> Callable[[socket.socket, int], None]:
    """``talk`` of an HTTP/1.1 server: ``answer(body, n)`` gives the raw answer; b"" hangs up."""

    def talk(sock: socket.socket, _number: int) -> None:
        buffer, n = b"", 0
        while True:
            while b"\r\n\r\n" not in buffer:
                more = sock.recv(65536)
                if not more:
                    return
                buffer += more
            head, buffer = buffer.split(b"\r\n\r\n", 1)
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            while len(buffer) < length:
                buffer += sock.recv(65536)
            body, buffer = buffer[:length], buffer[length:]
            n += 1
            reply = answer(body, n)
            if not reply:
                return
            for start in range(0, len(reply), 7000):  # answers arrive in pieces
                sock.sendall(reply[start : start + 7000])
            if b"connection: close" in reply:
                return

    return talk
