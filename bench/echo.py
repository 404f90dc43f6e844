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
    """Echo on `pygrpc_native`, one I/O thread, batches of up to 64."""
    from pygrpc_native import EVENT_CALL, NativeGrpcFront

    front = NativeGrpcFront(
        f"127.0.0.1:{port}", [(METHOD, False)], io_threads=1, client_key_metadata="authorization", call_details=True
    )
    front.start()
    turn = cycle(answers)
    gc.collect()
    gc.freeze()
    print(front.bound_port, flush=True)
    while (events := front.recv_batch_details(64)) is not None:
        for event in events:
            if event[0] == EVENT_CALL:
                front.respond(event[1], next(turn))


async def serve_http(port: int, answers: Sequence[bytes]) -> None:
    """Echo on Granian RSGI in this process."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    turn = cycle(answers)
    headers = [("content-type", "application/json"), ("x-openrtb-version", "2.6")]

    async def app(_scope: Any, protocol: Any) -> None:
        await protocol()
        answer = next(turn)
        if answer:
            protocol.response_bytes(200, headers, answer)
        else:
            protocol.response_empty(204, [])

    server = Server(app, address="127.0.0.1", port=port, interface=Interfaces.RSGI, log_enabled=False, websockets=False)
    gc.collect()
    gc.freeze()
    print(port, flush=True)
    await server.serve()


def main() -> None:
    """Serve until killed; prints the port first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("front", choices=("grpc", "http"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cpu", type=int, default=-1)
    parser.add_argument("--answers", type=Path, required=True)
    args = parser.parse_args()
    if args.cpu >= 0:
        os.sched_setaffinity(0, {args.cpu})
    answers = read_answers(args.answers)
    if args.front == "grpc":
        serve_grpc(args.port, answers)
    else:
        import uvloop

        uvloop.run(serve_http(args.port, answers))


if __name__ == "__main__":
    main()
