"""The same fronts with nothing behind them: what serving costs before any bidding.

`python -m bench.echo grpc|http --answers FILE` answers request i with the i-th recorded answer (an empty one: 204), so
that bytes in and out equal the real ones. Settings equal the bidder's ingress.
"""

from __future__ import annotations

import argparse
import gc
import os
import struct
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.load.request import METHOD
from dsp.openrtb.limits import MAX_BATCH


def write_answers(path: Path, answers: Sequence[bytes]) -> None:
    """Keep answers for `read_answers`: each with its length before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(struct.pack("<I", len(answer)) + answer for answer in answers))


def read_answers(path: Path) -> list[bytes]:
    """The answers in a file."""
    raw, at, out = path.read_bytes(), 0, []
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        out.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return out


def serve_grpc(port: int, answers: Sequence[bytes]) -> None:
    """Echo on `pygrpc_native` with the settings of `dsp.ingress.grpc_native`."""
    from pygrpc_native import EVENT_CALL, NativeGrpcFront

    from dsp.ingress.scheduling import yielding_threads

    with yielding_threads():
        front = NativeGrpcFront(
            f"127.0.0.1:{port}", [(METHOD, False)], io_threads=1, client_key_metadata="authorization", reuse_port=True
        )
    turn = cycle(answers)
    gc.collect()
    gc.freeze()
    with yielding_threads():
        front.start()
    while (events := front.recv_batch(MAX_BATCH)) is not None:
        for event in events:
            if event[0] == EVENT_CALL:
                front.respond(event[1], next(turn))


def serve_http(port: int, answers: Sequence[bytes]) -> None:
    """Echo on Granian as `dsp.ingress.rsgi` drives it: no event loop, one plain function per request."""
    from dsp.ingress.rsgi import Body, RsgiServer, Scope

    turn = cycle(answers)
    headers = [("content-type", "application/json"), ("x-openrtb-version", "2.6")]

    def arrive(scope: Scope, exchange: Any) -> None:
        scope.headers.get("content-type")
        body = exchange()
        body.add_done_callback(lambda body, context=None: answer(exchange, body))

    def answer(exchange: Any, body: Body) -> None:
        body.result()
        said = next(turn)
        if said:
            exchange.response_bytes(200, headers, said)
        else:
            exchange.response_empty(204, headers[1:])

    server = RsgiServer(arrive, "127.0.0.1", port, 2048)
    gc.collect()
    gc.freeze()
    server.start()
    server.wait_stopped(1e9)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("front", choices=("grpc", "http"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cpu", type=int, default=-1)
    parser.add_argument("--answers", type=Path, required=True)
    args = parser.parse_args()
    if args.cpu >= 0:
        os.sched_setaffinity(0, {args.cpu})
    serve = {"grpc": serve_grpc, "http": serve_http}[args.front]
    serve(args.port, read_answers(args.answers))


if __name__ == "__main__":
    main()
