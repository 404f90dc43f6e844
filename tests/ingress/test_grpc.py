"""Both gRPC fronts, by the same tests: statuses, metadata, limits, batches, health, reflection, drain."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from fake_engine import FakeEngine
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from dsp.base.config import BidderConfig
from dsp.base.metrics import OUTCOMES, UNKNOWN_EXCHANGE, Metrics
from dsp.bidder.answer import BID as BIDS
from dsp.ingress import grpcio_front, native
from dsp.ingress.grpc_native import GrpcNativeFront
from dsp.ingress.grpc_side import BID, SERVICE
from dsp.ingress.grpcio_front import GrpcioFront
from dsp.openrtb.limits import MAX_BODY_BYTES

FRONTS = {"native": (GrpcNativeFront, native), "grpcio": (GrpcioFront, grpcio_front)}
ALPHA = (("authorization", "Bearer open"),)
BETA = (("authorization", "Bearer s3cret"),)


class Served:
    """A front on a free port, running in a thread, and a channel to it."""

    def __init__(self, front: str, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.metrics = Metrics.memory()
        config = BidderConfig(**{"grpc_port": 0, "drain_s": 5.0, "snapshot_poll_s": 0.02, **settings})
        self.front = FRONTS[front][0](self.engine, config, self.metrics)
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.front.run, args=(self.stop.is_set,))
        self._thread.start()
        self.channel = self.connect()

    def connect(self) -> grpc.Channel:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
        return grpc.insecure_channel(f"127.0.0.1:{self.front.port}", options=options)

    def bid(self, body: bytes, metadata: Any = ALPHA, **more: Any) -> bytes:
        return self.channel.unary_unary(BID)(body, metadata=metadata, timeout=30, **more)

    def future(self, body: bytes) -> Any:
        return self.channel.unary_unary(BID).future(body, metadata=ALPHA, timeout=30)

    def close(self) -> None:
        self.engine.gate.set()
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.channel.close()


@pytest.fixture(params=sorted(FRONTS))
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Served]]:
    monkeypatch.setattr(FRONTS[request.param][1], "QUIET_NS", 20_000_000)
    servers: list[Served] = []

    def make(**settings: Any) -> Served:
        servers.append(Served(request.param, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def served(start: Callable[..., Served]) -> Served:
    return start()


def status(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def until(condition: Callable[[], bool]) -> None:
    """Poll for what another thread is about to do; the time is a bound on failure, not part of the test."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.001)


def test_a_bid_comes_back_and_the_exchange_is_the_metadata(served: Served) -> None:
    assert served.bid(b"bid me") == b"1 0 bid me"
    assert served.bid(b"bid me", BETA) == b"1 1 bid me"


def test_a_no_bid_is_ok_with_its_reason(served: Served) -> None:
    assert served.bid(b"none") == b"nbr 2"


def test_refusals_have_grpc_statuses(served: Served) -> None:
    assert status(lambda: served.bid(b"bad")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "imp[0].bidfloor: not a number: naïve\n",
    )
    assert status(lambda: served.bid(b"shed"))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status(lambda: served.bid(b"large"))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_or_missing_token_is_unauthenticated(served: Served) -> None:
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", ""),)):
        code, text = status(lambda metadata=metadata: served.bid(b"bid", metadata))  # type: ignore[misc]
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "authorization" in text
    assert served.metrics.counter("dsp_bid_requests_total")[UNKNOWN_EXCHANGE, OUTCOMES.index("unauthorized")] == 3


def test_a_message_over_the_limit_is_refused(served: Served) -> None:
    exact = b"bid ".ljust(MAX_BODY_BYTES, b"x")
    assert served.bid(exact).endswith(b"xx")
    for size in (MAX_BODY_BYTES + 1, 5_000_000):
        assert status(lambda size=size: served.bid(b"x" * size))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[misc]
    assert served.bid(b"bid") == b"1 0 bid"


def test_a_compressed_message_is_understood(served: Served) -> None:
    body = b"bid " + b"x" * 5000
    assert served.bid(body, compression=grpc.Compression.Gzip) == b"1 0 " + body


def test_an_engine_that_fails_is_a_no_bid_and_the_next_call_is_served(served: Served) -> None:
    assert served.bid(b"crash") == b""
    assert served.bid(b"bid") == b"1 0 bid"
    assert served.metrics.counter("dsp_engine_errors_total")[0] == 1


def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    call = served.channel.unary_unary("/dsp.v1.Bidder/Ask")
    assert status(lambda: call(b"", metadata=ALPHA, timeout=30))[0] == grpc.StatusCode.UNIMPLEMENTED


def test_calls_that_arrive_during_a_batch_make_the_next_one(served: Served) -> None:
    for _ in range(20):  # on a busy machine the calls may be slower than the batch they should arrive in
        served.engine.gate.clear()
        served.engine.entered.clear()
        served.engine.batches.clear()
        first = served.future(b"bid first")
        assert served.engine.entered.wait(20)
        others = [served.future(b"bid %d" % n) for n in range(20)]
        served.engine.gate.set()
        assert first.result() == b"1 0 bid first"
        assert [call.result() for call in others] == [b"1 0 bid %d" % n for n in range(20)]
        assert sum(served.engine.batches) == 21
        if max(served.engine.batches) > 1:
            return
    raise AssertionError("no two calls ever shared a batch")


def test_calls_that_wait_while_exchanges_are_renumbered_stay_their_own(start: Callable[..., Served]) -> None:
    served = start(max_batch=1, snapshot_poll_s=0.0)  # a poll after every call
    engine, names, wait = served.engine, ["Bearer open", "Bearer s3cret"], served.engine.decide

    def index(token: bytes | str) -> int:
        return names.index(token.decode() if isinstance(token, bytes) else token)

    def decide(bodies: Any, formats: Any, exchanges: Any, *more: Any) -> Any:
        wait(bodies, formats, exchanges, *more)
        return [(BIDS, names[exchange].encode()) for exchange in exchanges]

    engine.gate.clear()
    engine.exchange_of_token = index  # type: ignore[method-assign]
    engine.decide = decide  # type: ignore[method-assign]
    engine.poll = names.reverse  # type: ignore[method-assign]  # each snapshot numbers them the other way round
    call = served.channel.unary_unary(BID)
    first = call.future(b"bid", metadata=ALPHA, timeout=30)
    assert engine.entered.wait(20)
    others = [call.future(b"bid", metadata=(ALPHA, BETA)[n % 2], timeout=30) for n in range(40)]
    engine.gate.set()
    assert first.result() == b"Bearer open"
    assert [other.result() for other in others] == [b"Bearer open", b"Bearer s3cret"] * 20


def test_more_calls_than_the_queue_holds_are_shed(start: Callable[..., Served]) -> None:
    served = start(queue_limit=4, max_batch=1)
    served.engine.gate.clear()
    calls = [served.future(b"bid") for _ in range(40)]
    assert served.engine.entered.wait(20)
    served.engine.gate.set()
    codes = [call.code() for call in calls]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 4
    assert grpc.StatusCode.RESOURCE_EXHAUSTED in codes


def test_health_is_standard(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = health_pb2.HealthCheckRequest(service="other")
    assert status(lambda: stub.Check(request, timeout=30))[0] == grpc.StatusCode.NOT_FOUND


def test_watchers_are_told_of_the_drain(start: Callable[..., Served]) -> None:
    served = start()
    watch = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    served.stop.set()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_reflection_lists_the_service_and_its_messages(served: Served) -> None:
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert SERVICE in database.get_services()
    file = database.FindFileContainingSymbol(SERVICE)
    assert file.service[0].method[0].input_type.endswith(".BidRequest")


def test_the_engine_is_polled_even_without_calls(served: Served) -> None:
    until(lambda: served.engine.polls > 2)


def test_draining_answers_what_is_in_flight_and_fails_nothing_after_one_retry(start: Callable[..., Served]) -> None:
    """Two fronts on one port, one drained under load: at most one retry, and every call is answered."""
    old = start()
    new = start(grpc_port=old.front.port)
    failures: list[BaseException] = []
    retries: list[grpc.StatusCode] = []
    done = threading.Event()

    def load() -> None:
        channel = old.connect()
        call = channel.unary_unary(BID)
        try:
            while not done.is_set():
                try:
                    assert call(b"bid", metadata=ALPHA, timeout=20) == b"1 0 bid"
                except grpc.RpcError as error:
                    retries.append(error.code())
                    assert call(b"bid", metadata=ALPHA, timeout=20, wait_for_ready=True) == b"1 0 bid"
        except BaseException as error:
            failures.append(error)
        channel.close()

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: sum(old.engine.batches) + sum(new.engine.batches) > 200)
    old.stop.set()
    old._thread.join(30)
    served_by_new = sum(new.engine.batches)
    until(lambda: sum(new.engine.batches) > served_by_new + 100 or bool(failures))
    done.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert set(retries) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_drained_front_is_unready_first(start: Callable[..., Served]) -> None:
    served = start(drain_s=20.0)
    stub = health_pb2_grpc.HealthStub(served.channel)
    served.engine.gate.clear()
    in_flight = served.future(b"bid slow")
    assert served.engine.entered.wait(20)
    served.stop.set()
    served.engine.gate.set()
    assert in_flight.result() == b"1 0 bid slow"
    try:
        after = stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status
    except grpc.RpcError as error:  # already closed
        after = error.code()
    assert after in (health_pb2.HealthCheckResponse.NOT_SERVING, grpc.StatusCode.UNAVAILABLE)
