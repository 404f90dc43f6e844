"""The generator's frames, judged by independent implementations (`h2`, `hpack`)."""

import h2.config
import h2.connection
import h2.events
import hpack
import numpy as np
import pytest

from bench.load.h2kernel import grpc_status, has_seatbid
from bench.load.h2wire import GRPC_STATUS, GRPC_STATUS_HUFFMAN, pack
from bench.load.http1kernel import W_CLOSE, W_IN, W_LEFT, W_STATUS, W_WIDTH, parse_head
from dsp.ingress.h2wire import header_block, preface, request_frames


def u8(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def with_stream(frames: bytes, stream_id: int) -> bytes:
    out, at = bytearray(frames), 0
    while at < len(out):
        out[at + 5 : at + 9] = stream_id.to_bytes(4, "big")
        at += 9 + int.from_bytes(out[at : at + 3], "big")
    return bytes(out)


@pytest.mark.parametrize("size", [0, 1, 2000, 16384 - 5, 16384 - 4, 40_000])
def test_h2_reads_our_requests_as_we_meant_them(size):
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    server.initiate_connection()
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    block = header_block("127.0.0.1:80", "/dsp.v1.Bidder/Bid", [("authorization", "Bearer " + "t" * 200)])
    events = server.receive_data(preface())
    assert any(isinstance(event, h2.events.RemoteSettingsChanged) for event in events)
    for stream_id in (1, 3):
        events = server.receive_data(request_frames(block, body, stream_id))
        headers = next(event for event in events if isinstance(event, h2.events.RequestReceived))
        assert headers.stream_id == stream_id
        assert dict(headers.headers) == {
            ":method": "POST", ":scheme": "http", ":path": "/dsp.v1.Bidder/Bid", ":authority": "127.0.0.1:80",
            "te": "trailers", "content-type": "application/grpc", "user-agent": "dsp",
            "authorization": "Bearer " + "t" * 200,
        }  # fmt: skip
        data = b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
        assert data == b"\0" + size.to_bytes(4, "big") + body
        assert any(isinstance(event, h2.events.StreamEnded) for event in events)
        server.acknowledge_received_data(len(data), stream_id)


def test_our_preface_forbids_a_dynamic_table_and_opens_the_window():
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(preface())
    assert server.remote_settings.header_table_size == 0
    assert server.remote_settings.initial_window_size == 2**31 - 1
    assert server.outbound_flow_control_window == 2**31 - 1


def test_grpc_status_constants_are_what_hpack_says():
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([("grpc-status", "0")], huffman=True)
    assert bytes(GRPC_STATUS_HUFFMAN) in block
    assert bytes(GRPC_STATUS) in encoder.encode([("grpc-status", "0")], huffman=False)


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize("code", range(17))
def test_grpc_status_is_found_in_any_trailers(code, huffman):
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    fields = [(":status", "200"), ("content-type", "application/grpc")]
    fields += [("grpc-message", "grpc-stat is not it"), ("grpc-status", str(code)), ("x", "y")]
    block = encoder.encode(fields, huffman=huffman)
    assert grpc_status(u8(block), 0, len(block)) == code


def test_a_block_without_grpc_status_says_so():
    block = hpack.Encoder().encode([(":status", "200"), ("content-type", "application/grpc")])
    assert grpc_status(u8(block), 0, len(block)) == -1
    cut = bytes(GRPC_STATUS) + b"\x05"
    assert grpc_status(u8(cut), 0, len(cut)) == -1


def test_a_bid_is_told_from_a_no_bid_by_field_two():
    no_bid = b"\x0a\x05abcde" + b"\x30\x02"  # id, nbr
    bid = b"\x0a\x05abcde" + b"\x22\x03USD" + b"\x12\x02\x0a\x00"
    assert not has_seatbid(u8(no_bid), 0, len(no_bid))
    assert has_seatbid(u8(bid), 0, len(bid))
    long_id = b"\x0a\xc8\x01" + b"\x12" * 200  # looks like field two everywhere
    assert not has_seatbid(u8(long_id), 0, len(long_id))
    assert has_seatbid(u8(long_id + b"\x12\x00"), 0, len(long_id) + 2)
    assert not has_seatbid(u8(b""), 0, 0)


def test_pack_finds_every_part_again():
    parts = [b"a", b"", b"xyz" * 100]
    pool, offsets = pack(parts)
    assert [pool[offsets[i] : offsets[i + 1]].tobytes() for i in range(3)] == parts


def head(text: bytes) -> tuple[int, dict[str, int]]:
    conn, inb = np.zeros((1, W_WIDTH), np.int64), np.zeros((1, 1 << 16), np.uint8)
    inb[0, : len(text)] = u8(text)
    conn[0, W_IN], conn[0, W_LEFT] = len(text), -1
    said = parse_head(0, conn, inb)
    return said, {"status": conn[0, W_STATUS], "left": conn[0, W_LEFT], "close": conn[0, W_CLOSE]}


def test_http_answers_are_read():
    assert head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabc") == (1, {"status": 200, "left": 9, "close": 0})
    assert head(b"HTTP/1.1 204 No Content\r\n\r\n") == (1, {"status": 204, "left": 0, "close": 0})
    assert head(b"HTTP/1.1 400 Bad\r\nconnection: Close\r\ncontent-length:0\r\n\r\n") == (
        1,
        {"status": 400, "left": 0, "close": 1},
    )
    assert head(b"HTTP/1.1 200 OK\r\ncontent-le")[0] == 0
    assert head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")[0] == -1
    assert head(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")[0] == -1
