"""Is the generator the limit? Its ceiling against the fastest possible server, and known tools' opinion.

`python -m bench generator`. The ceiling must lie far above what any server under test reaches. `h2load` and `wrk`,
where installed, load the same echo with one body, in turns with our generator; the rates should agree.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import struct
import subprocess
from typing import Any

import numpy as np

from bench.echo import write_answers
from bench.load import METHOD, GrpcLoad, HttpLoad, to_one_path
from bench.procs import LOAD_CPU, OUT, Server, free_port, pin

BODY_BYTES = {"grpc": 850, "http": 1900}
ANSWER_BYTES = 900
IN_FLIGHT = {"grpc": 256, "http": 48}
Load = GrpcLoad | HttpLoad


def make_load(front: str, address: tuple[str, int], bodies: list[bytes]) -> Load:
    """The generator for a front, without any header of an exchange."""
    if front == "grpc":
        return GrpcLoad(address, to_one_path(bodies, METHOD))
    return HttpLoad(address, to_one_path(bodies, "/bid/x"))


def random_bodies(front: str, n: int = 3000) -> list[bytes]:
    """Incompressible bodies of the usual size."""
    rng = np.random.default_rng(1)
    size = BODY_BYTES[front]
    return [rng.integers(32, 127, size, np.uint8).tobytes() for _ in range(n)]


def ceiling(front: str, seconds: float, windows: int) -> dict[str, Any]:
    """Requests a second against a server that does next to nothing, on the other core."""
    port = free_port()
    with Server(f"sink-{front}", "bench.load.sink", [front, str(port), str(ANSWER_BYTES)], port):
        load = make_load(front, ("127.0.0.1", port), random_bodies(front))
        load.closed_loop(IN_FLIGHT[front], 0.2)
        runs = [load.closed_loop(IN_FLIGHT[front], seconds) for _ in range(windows)]
        load.close()
    best = max(runs, key=lambda run: run.answered_per_s)
    return {
        "front": front,
        "ceiling_per_s": round(float(np.median([run.answered_per_s for run in runs]))),
        "ceiling_best_per_s": round(best.answered_per_s),
        "generator_us_per_request": round(best.busy * best.seconds / max(1, best.sent) * 1e6, 2),
        "errors": sum(run.errors for run in runs),
    }


def second_opinion(front: str, seconds: float, windows: int) -> dict[str, Any]:
    """Our rate against the echo, and the packaged tool's, in turns with the same single body."""
    tool = {"grpc": "h2load", "http": "wrk"}[front]
    if shutil.which(tool) is None:
        return {"front": front, "tool": tool, "note": f"{tool} is not installed: skipped"}
    answers, port = OUT / "generator-answers.bin", free_port()
    write_answers(answers, [b"x" * ANSWER_BYTES])
    with Server(f"echo-{front}", "bench.echo", [front, "--port", str(port), "--answers", str(answers)], port) as server:
        body = random_bodies(front, 1)[0]
        load = make_load(front, server.address, [body])
        load.closed_loop(IN_FLIGHT[front], 0.2)
        ours, theirs = [], []
        for _ in range(windows):
            ours.append(load.closed_loop(IN_FLIGHT[front], seconds))
            theirs.append(_tool_rate(front, port, body, max(1, round(seconds))))
        load.close()
    rates: list[float] = [run.answered_per_s for run in ours]
    return {
        "front": front,
        "tool": tool,
        "ours_per_s": round(float(np.median(rates))),
        "tool_per_s": round(float(np.median(theirs))),
        "ratio": round(float(np.median(rates) / np.median(theirs)), 3),
        "generator_busy": round(float(np.median([run.busy for run in ours])), 3),
        "errors": sum(run.errors for run in ours),
    }


def _tool_rate(front: str, port: int, body: bytes, seconds: int) -> float:
    """Requests a second by `h2load` or `wrk`, which inherit this process's core."""
    if front == "grpc":
        data = OUT / "generator-body.bin"
        data.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        load = ["-t", "1", "-c", "8", "-m", str(IN_FLIGHT[front] // 8), "-D", str(seconds), "-d", str(data)]
        command = ["h2load", *load, *headers, f"http://127.0.0.1:{port}{METHOD}"]
        pattern = r"finished in [^,]+, ([\d.]+) req/s"
    else:
        script = OUT / "generator-post.lua"
        script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("z", {len(body)})\n')
        load = ["-t", "1", "-c", str(IN_FLIGHT[front]), "-d", f"{seconds}s", "-s", str(script)]
        command = ["wrk", *load, f"http://127.0.0.1:{port}/bid/x"]
        pattern = r"Requests/sec:\s+([\d.]+)"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(pattern, done.stdout)
    if found is None:
        raise RuntimeError(f"{command[0]} said nothing of a rate:\n{done.stdout}")
    return float(found[1])


def main(argv: list[str] | None = None) -> int:
    """Measure both fronts and print JSON lines."""
    parser = argparse.ArgumentParser(prog="bench generator", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    parser.add_argument("--windows", type=int, default=3)
    args = parser.parse_args(argv)
    pin(LOAD_CPU)
    for front in ("grpc", "http"):
        for measure in (ceiling, second_opinion):
            print(json.dumps(measure(front, args.seconds, args.windows)), flush=True)
    return 0


if __name__ == "__main__":
    main()
