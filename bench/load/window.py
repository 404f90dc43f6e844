"""What one run measured: latencies, answers by kind, and how the generator itself fared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

# Statuses: gRPC 0..16 or HTTP 100..599 as the server said them, and these of ours.
GRPC_UNSAID = 17  # an answer without grpc-status
LOST = 1000  # the connection ended before the answer
TIMEOUT = 1001  # no answer when the run's drain time was over
GOAWAY = 1002  # refused by GOAWAY: safe to retry
UNREADABLE = 1003  # not an answer this client understands
UNSENT = 1004  # the caller's patience ended while every stream or connection was taken: never sent
RESET = 2000  # + the RST_STREAM code
GOOD = (0, 200, 204)
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


@dataclass(frozen=True)
class Window:
    """Latencies (µs, float64[n], from the intended send time; a timed-out request counts until it was given up)."""

    rate: float  # asked for, 0 for a closed loop
    in_flight: int  # kept outstanding, 0 for an open loop
    seconds: float  # from the start until the last answer
    sent: int
    answered_per_s: float
    errors: int
    bids: int
    statuses: dict[int, int]
    bytes_out: float  # mean good answer (gRPC: with its prefix of 5 bytes)
    latency_us: npt.NDArray[np.float64]
    send_lag_us: npt.NDArray[np.float64]  # sent minus intended: queueing inside the generator
    busy: float  # share of the run in which the generator had something to do
    stall: float  # share in which it was not scheduled (gaps above a millisecond)
    longest_gap_ms: float
    cpu_s: float  # of the generator's thread: it polls, so about the run's length
    extra: dict[str, Any] = field(default_factory=dict)  # what the caller measured meanwhile

    @classmethod
    def of(
        cls,
        times: npt.NDArray[np.int64],
        facts: npt.NDArray[np.int32],
        ctl: npt.NDArray[np.int64],
        rate: float,
        in_flight: int,
        span_ns: tuple[int, int, int],
        cpu_s: float,
    ) -> Window:
        """From the arrays of `bench.load.run` (times int64[3, n], facts int32[3, n]); span is start, stop, end."""
        started_ns, stop_ns, ended_ns = span_ns
        intended, sent, done = times
        status, size, bid = facts
        pending = done == 0
        status = np.where(pending, TIMEOUT, status)
        done = np.where(pending, ended_ns, done)
        good = np.isin(status, GOOD)
        first_ns = int(intended[0]) if len(intended) and rate else started_ns
        # Throughput is what was answered while load was offered: the drain at the end is not part of it.
        inside = int((good & (done <= stop_ns)).sum())
        wall_ns = max(1, ended_ns - started_ns)
        return cls(
            rate=rate,
            in_flight=in_flight,
            seconds=wall_ns / 1e9,
            sent=len(intended),
            answered_per_s=inside / max(1e-9, (stop_ns - first_ns) / 1e9),
            errors=int((~good).sum()),
            bids=int((bid[good] != 0).sum()),
            statuses={int(code): n for code, n in Counter(status.tolist()).items()},
            bytes_out=float(size[good].mean()) if good.any() else 0.0,
            latency_us=(done - intended) / 1e3,
            send_lag_us=(np.where(sent == 0, ended_ns, sent) - intended) / 1e3,
            busy=float(ctl[4]) / wall_ns,
            stall=float(ctl[5]) / wall_ns,
            longest_gap_ms=float(ctl[6]) / 1e6,
            cpu_s=cpu_s,
        )

    def percentiles(self) -> dict[str, float]:
        """p50, p90, p99, p99.9 and the largest, µs; NaN without requests."""
        if not len(self.latency_us):
            return dict.fromkeys((*PERCENTILES, "max"), float("nan"))
        values = np.percentile(self.latency_us, list(PERCENTILES.values()))
        return {**dict(zip(PERCENTILES, map(float, values), strict=True)), "max": float(self.latency_us.max())}

    def bid_rate(self) -> float:
        """Bids per good answer."""
        return self.bids / max(1, self.sent - self.errors)

    def row(self) -> dict[str, Any]:
        """Everything but the raw latencies, for a JSON line."""
        lag = float(np.percentile(self.send_lag_us, 99)) if len(self.send_lag_us) else float("nan")
        return {
            "rate": round(self.rate, 1),
            "in_flight": self.in_flight,
            "seconds": round(self.seconds, 3),
            "sent": self.sent,
            "answered_per_s": round(self.answered_per_s, 1),
            **{f"{name}_us": round(value, 1) for name, value in self.percentiles().items()},
            "errors": self.errors,
            "statuses": {str(code): n for code, n in sorted(self.statuses.items())},
            "bid_rate": round(self.bid_rate(), 4),
            "answer_bytes": round(self.bytes_out, 1),
            "generator_busy": round(self.busy, 4),
            "generator_stall": round(self.stall, 4),
            "generator_longest_gap_ms": round(self.longest_gap_ms, 3),
            "generator_cpu_s": round(self.cpu_s, 3),
            "send_lag_p99_us": round(lag, 1),
            **self.extra,
        }
