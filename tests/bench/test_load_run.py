"""The generator against a small server: every answer is counted once, as what it was, whatever the connection does."""

import socket
import threading

import numpy as np
import pytest
from tinyserver import Grpc, TinyServer, http

from bench.load import METHOD, GrpcLoad, HttpLoad, LoadError, to_one_path, window

BID = b"\x0a\x01x\x12\x00"
NO_BID = b"\x0a\x01x\x30\x02"
BODIES = [b"%04d" % i * (50 + i) for i in range(100)]


def grpc(server, **options):
    return GrpcLoad(
        server.address,
        to_one_path(BODIES, METHOD),
        spin=False,
        **{"connections": 2, "streams_per_connection": 4096, **options},
    )


def test_every_grpc_call_is_answered_and_sorted():
    def answer(body, n):
        number = int(body[:4])
        return (3, b"") if number % 10 == 0 else (0, BID if number % 2 else NO_BID)

    talk = Grpc(answer, ping=True)
    with TinyServer(talk) as server:
        load = grpc(server)
        window_ = load.open_loop(1000, 0.2, even=True)
        load.close()
    assert window_.sent == 200
    assert window_.statuses == {0: 180, 3: 20}
    assert window_.bids == 100
    assert window_.errors == 20
    assert sorted(talk.bodies) == sorted(BODIES * 2)  # each body twice: the order is shuffled and repeats
    assert talk.pongs > 0
    assert (window_.latency_us > 0).all()


def test_latency_counts_from_the_intended_time():
    """A server that pauses once delays later answers too, and their waiting is counted (no coordinated omission)."""
    gate = threading.Event()

    def answer(_body, n):
        if n == 1:
            gate.wait(0.1)  # nobody sets it: a pause of the server
        return 0, BID

    with TinyServer(Grpc(answer)) as server:
        load = grpc(server, connections=1, in_flight_cap=1)
        window_ = load.open_loop(1000, 0.2, even=True)
        load.close()
    assert window_.latency_us[0] > 90_000
    assert window_.latency_us[20] > 60_000
    assert window_.send_lag_us[20] > 60_000  # it waited here, in the generator, and that is counted as well


@pytest.mark.parametrize("front", ["grpc", "http"])
def test_a_caller_gives_up_what_it_could_not_send_in_time(front):
    """A server that pauses with everything taken: what waits longer than the caller's patience is never sent."""
    gate = threading.Event()

    def answer(_body, n):
        if n == 1:
            gate.wait(0.2)  # nobody sets it: a pause of the server
        return (0, BID) if front == "grpc" else b"HTTP/1.1 204 No Content\r\n\r\n"

    with TinyServer(Grpc(answer) if front == "grpc" else http(answer)) as server:
        if front == "grpc":
            load = grpc(server, connections=1, in_flight_cap=1)
        else:
            load = HttpLoad(server.address, to_one_path(BODIES, "/bid/x"), connections=1, spin=False)
        window_ = load.open_loop(1000, 0.3, even=True, patience_s=0.05)
        load.close()
    given_up = window_.statuses[window.UNSENT]
    assert window_.sent == sum(window_.statuses.values()) == 300
    assert window_.errors == given_up > 100
    assert (window_.send_lag_us[window_.latency_us > 0] > 0).any()


def test_closed_loop_keeps_to_what_the_server_allows():
    talk = Grpc(lambda body, n: (0, BID), streams=3)
    with TinyServer(talk) as server:
        load = grpc(server)
        window_ = load.closed_loop(64, 0.2)
        load.close()
    assert talk.most_open <= 3
    assert window_.sent > 10
    assert window_.statuses == {0: window_.sent}
    assert window_.in_flight == 64


def test_connections_are_replaced_before_stream_ids_run_out():
    with TinyServer(Grpc(lambda body, n: (0, BID))) as server:
        load = grpc(server, streams_per_connection=32)
        window_ = load.open_loop(2000, 0.1)
        load.close()
    assert window_.statuses == {0: 200}
    assert server.connections >= 200 // 32


def test_goaway_and_resets_are_counted_and_survived():
    with TinyServer(Grpc(lambda body, n: (0, BID), goaway_after=20)) as server:
        load = grpc(server, connections=1)
        window_ = load.open_loop(2000, 0.1, even=True)
        load.close()
    assert sum(window_.statuses.values()) == 200
    assert window_.statuses[0] >= 20
    assert server.connections > 1
    assert set(window_.statuses) <= {0, window.GOAWAY, window.LOST}
    with TinyServer(Grpc(lambda body, n: (0, BID), reset_every=4)) as server:
        load = grpc(server, connections=1)
        window_ = load.open_loop(1000, 0.1, even=True)
        load.close()
    assert window_.statuses == {0: 75, window.RESET + 11: 25}


def test_a_server_that_stops_answering_costs_its_calls_and_no_later_run(monkeypatch):
    monkeypatch.setattr("bench.load.run.DRAIN_NS", 100_000_000)
    with TinyServer(Grpc(lambda body, n: (0, BID), deaf_after=5)) as server:
        load = grpc(server, connections=1)
        window_ = load.open_loop(1000, 0.02, even=True)
        again = load.open_loop(1000, 0.005, even=True)
        load.close()
    assert window_.statuses == {0: 5, window.TIMEOUT: 15}
    assert (np.sort(window_.latency_us)[-15:] > 90_000).all()
    assert again.statuses == {0: 5}


def test_http_answers_are_sorted_and_large_ones_counted():
    def answer(body, n):
        number = int(body[:4])
        if number % 10 == 0:
            return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
        if number % 2:
            return b"HTTP/1.1 200 OK\r\ncontent-length: 90000\r\n\r\n" + b"x" * 90_000
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    with TinyServer(http(answer)) as server:
        load = HttpLoad(server.address, to_one_path(BODIES, "/bid/x"), connections=4, spin=False)
        window_ = load.open_loop(500, 0.2, even=True)
        load.close()
    assert window_.statuses == {200: 50, 204: 40, 400: 10}
    assert window_.bids == 50
    assert window_.bytes_out == pytest.approx(50 * 90_000 / 90)


def test_http_connections_that_close_are_replaced():
    def answer(_body, n):
        if n == 10:
            return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    with TinyServer(http(answer)) as server:
        load = HttpLoad(server.address, to_one_path(BODIES, "/bid/x"), connections=2, spin=False)
        window_ = load.open_loop(1000, 0.1, even=True)
        load.close()
    assert window_.statuses == {200: 100}
    assert server.connections >= 10
    with TinyServer(http(lambda body, n: b"" if n == 10 else b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        load = HttpLoad(server.address, to_one_path(BODIES, "/bid/x"), connections=2, spin=False)
        window_ = load.closed_loop(2, 0.1)
        load.close()
    assert window_.statuses[window.LOST] == window_.sent - window_.statuses[204]
    assert window_.statuses[window.LOST] >= window_.sent // 10 - 2


def test_no_server_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(LoadError, match="cannot connect to 127"):
        GrpcLoad(address, to_one_path(BODIES, METHOD), spin=False)
