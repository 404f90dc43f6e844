"""The ARTF front over real calls: answers, statuses, token, health and reflection, deadline, failure, drain."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pygrpc_native import EVENT_CALL

from dsp.base.config import ArtfConfig, BidderConfig, Config
from dsp.base.metrics import ARTF_OUTCOMES, Metrics
from dsp.ingress import artf_grpc, native
from dsp.ingress.artf_grpc import BAD, GET_MUTATIONS, LATE, PROPOSED, SERVICE, SHED, ArtfFront
from dsp.openrtb.limits import MAX_BODY_BYTES
from dsp.pb.com.iabtechlab.bidstream.mutation.services.v1 import service_pb2_grpc
from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2 as pb


class FakeAgent:
    """Echoes the body; "bad", "late" and "fail" do as they say; waits at the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered, self.declined = threading.Event(), 0
        self.begun_ns: list[int] = []
        self.seen: list[tuple[list[bytes], list[int], list[int]]] = []

    def decide(self, bodies: Any, arrived_ns: Any, left_ns: Any, send: Any) -> None:
        self.begun_ns.append(time.monotonic_ns())
        self.entered.set()
        self.gate.wait(20)
        self.seen.append((bodies, arrived_ns, left_ns))
        for i, body in enumerate(bodies):
            if body == b"fail":
                raise RuntimeError("on purpose")
            send(i, {b"bad": BAD, b"late": LATE}.get(body, PROPOSED), b"wrong: " + body if body == b"bad" else body)

    def decline(self, bodies: Any, send: Any) -> None:
        self.declined += len(bodies)
        for i in range(len(bodies)):
            send(i, SHED, b"")

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass


class Served:
    def __init__(self, **settings: Any) -> None:
        self.agent, self.metrics = FakeAgent(), Metrics.memory()
        config = Config(bidder=BidderConfig(drain_s=5.0), artf=ArtfConfig(port=0, **settings))
        self.front = ArtfFront(self.agent, config, self.metrics)
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.front.run, args=(self.stop.is_set,))
        self._thread.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.front.port}", (("grpc.use_local_subchannel_pool", 1),))

    def call(self, body: bytes, **more: Any) -> bytes:
        return self.channel.unary_unary(GET_MUTATIONS)(body, **{"timeout": 20, **more})

    def count(self, outcome: str) -> int:
        return int(self.metrics.counter("dsp_artf_requests_total")[ARTF_OUTCOMES.index(outcome)])

    def close(self) -> None:
        self.agent.gate.set()
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.channel.close()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    monkeypatch.setattr(native, "QUIET_NS", 20_000_000)
    servers: list[Served] = []

    def make(**settings: Any) -> Served:
        servers.append(Served(**settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def status(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_answers_and_refusals(start: Callable[..., Served]) -> None:
    served = start()
    assert served.call(b"change") == b"change"
    assert status(lambda: served.call(b"bad")) == (grpc.StatusCode.INVALID_ARGUMENT, "wrong: bad")
    assert status(lambda: served.call(b"late"))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    code, text = status(lambda: served.call(b"x" * (MAX_BODY_BYTES + 1)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "larger" in text


def test_the_generated_client_calls_it_by_its_official_name(start: Callable[..., Served]) -> None:
    served = start()
    stub = service_pb2_grpc.RTBExtensionPointStub(served.channel)
    # An RTBRequest's id and an RTBResponse's are different fields, so an echo reads as one with no id.
    assert stub.GetMutations(pb.RTBRequest(tmax=5), timeout=20) == pb.RTBResponse.FromString(b"\x18\x05")


def test_an_agent_that_fails_proposes_nothing(start: Callable[..., Served]) -> None:
    served = start()
    assert served.call(b"fail") == b""
    assert served.count("failed") == 1


def test_a_token_where_the_settings_ask_for_one(start: Callable[..., Served]) -> None:
    served = start(token="s3cret")
    assert status(lambda: served.call(b"x"))[0] == grpc.StatusCode.UNAUTHENTICATED
    assert status(lambda: served.call(b"x", metadata=(("authorization", "Bearer no"),)))[0] == (
        grpc.StatusCode.UNAUTHENTICATED
    )
    assert served.call(b"x", metadata=(("authorization", "Bearer s3cret"),)) == b"x"


def test_the_callers_deadline_and_the_time_of_arrival_reach_the_engine(start: Callable[..., Served]) -> None:
    served = start()
    before_ns = time.monotonic_ns()
    served.call(b"x", timeout=7.0)
    ((_, (arrived_ns,), (left_ns,)),) = served.agent.seen
    assert 0 < left_ns <= 7_100_000_000  # gRPC rounds what it sends up
    assert before_ns - 1_000_000_000 < arrived_ns <= time.monotonic_ns()


class BusyServer:
    """Has a call whenever it is asked, twice, then nothing."""

    bound_port = 1

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.left = [(EVENT_CALL, n, 0, b"%d" % n, "peer", ((), "peer", None)) for n in range(2)]

    def recv_batch_details(self, most: int, wait_ms: int) -> list[Any]:
        return [self.left.pop(0)] if self.left else []

    def __getattr__(self, name: str) -> Callable[..., bool]:
        return lambda *args: True


def test_what_waited_while_the_front_was_busy_counts_from_when_it_last_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "NativeGrpcFront", BusyServer)
    monkeypatch.setattr(artf_grpc, "AT_ONCE_NS", 10**9)
    monkeypatch.setattr(native, "QUIET_NS", 0)
    agent = FakeAgent()
    ArtfFront(agent, Config(artf=ArtfConfig(port=0)), Metrics.memory()).run(lambda: len(agent.seen) == 2)
    assert [bodies for bodies, _, _ in agent.seen] == [[b"0"], [b"1"]]
    assert agent.seen[1][1][0] <= agent.begun_ns[0]


def test_more_than_may_wait_get_no_mutations_at_once(start: Callable[..., Served]) -> None:
    served = start(queue_limit=8, max_batch=4)
    served.agent.gate.clear()
    first = served.channel.unary_unary(GET_MUTATIONS).future(b"first", timeout=20)
    assert served.agent.entered.wait(20)
    calls = [served.channel.unary_unary(GET_MUTATIONS).future(b"%d" % i, timeout=20) for i in range(40)]
    served.agent.gate.set()
    answers = [call.result() for call in calls]
    assert first.result() == b"first"
    assert all(answer in (b"", b"%d" % i) for i, answer in enumerate(answers))
    assert answers.count(b"") == served.agent.declined
    assert max(len(bodies) for bodies, _, _ in served.agent.seen) <= 4


def test_health_and_reflection(start: Callable[..., Served]) -> None:
    served = start()
    stub = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert status(lambda: stub.Check(health_pb2.HealthCheckRequest(service="no"), timeout=20))[0] == (
        grpc.StatusCode.NOT_FOUND
    )
    assert SERVICE in ProtoReflectionDescriptorDatabase(served.channel).get_services()


def test_draining_ends_with_what_was_begun_answered(start: Callable[..., Served]) -> None:
    served = start()
    served.agent.gate.clear()
    call = served.channel.unary_unary(GET_MUTATIONS).future(b"begun", timeout=20)
    assert served.agent.entered.wait(20)
    served.stop.set()
    served.agent.gate.set()
    assert call.result() == b"begun"


def open_agent(*_: object) -> FakeAgent:
    """For the worker below, in a process of its own."""
    return FakeAgent()


def test_a_worker_of_this_kind_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"data_dir: {tmp_path}\nartf: {{port: 0, workers: 1}}\n")
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-m", "dsp.ingress.worker", "artf", "0", "--config", str(settings)]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    worker = subprocess.Popen(
        [*command, "--engine", "test_artf_front:open_agent"], env=os.environ | {"PYTHONPATH": paths}
    )
    try:
        ready, end = tmp_path / "run" / "bidder-artf-0.json", time.monotonic() + 60
        while not ready.exists():
            assert worker.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        port = json.loads(ready.read_text())["port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert channel.unary_unary(GET_MUTATIONS)(b"change", timeout=20) == b"change"
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
