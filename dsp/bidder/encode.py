"""Stage 10, encode: bids to bytes, in the format the request came in.

A creative's whole bid is a pre-rendered bytes %-format (the catalog compiler writes it); per bid only ids, price, deal
and the signed token are put in. Numbers of fields are OpenRTB 2.6's protobuf.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from dsp.base.token import TOKEN_TEXT_BYTES, Signer, seal_records
from dsp.bidder.gate import Q_CURRENCY
from dsp.bidder.native import NativeCache
from dsp.bidder.price import B_CAND, B_PRICE
from dsp.bidder.rank import C_CR, C_DEAL, C_IMP, C_LI
from dsp.catalog.layout import CR_DURATION_S, CR_H, CR_MEDIA, CR_W, EX_EXP_S, LI_SEAT
from dsp.catalog.snapshot import Snapshot
from dsp.openrtb.columns import (
    ASSET_WIDTH,
    BANNER,
    D_ID_LEN,
    D_ID_OFF,
    FMT_JSON,
    I_B_SIZES0,
    I_B_SIZESN,
    I_ID_LEN,
    I_ID_OFF,
    I_N_ASSETS0,
    I_N_ASSETSN,
    I_N_HASH,
    I_N_VER,
    I_N_WRAPPED,
    NATIVE,
    R_EXCHANGE,
    R_FMT,
    R_ID_LEN,
    R_ID_OFF,
    VIDEO,
    Batch,
)
from dsp.openrtb.limits import MAX_BATCH, MAX_IMPS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_double = struct.Struct("<d").pack


def varint(value: int) -> bytes:
    """A protobuf varint of a non-negative integer."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pb_bytes(tag: bytes, value: bytes) -> bytes:
    """A length-delimited protobuf field; ``tag`` is its encoded key."""
    return tag + varint(len(value)) + value


T_BID_ADM, T_BID_DEAL = b"\x32", b"\x6a"  # Bid.adm = 6, Bid.dealid = 13
T_BID_W, T_BID_H, T_BID_EXP = b"\x80\x01", b"\x88\x01", b"\xa8\x01"  # 16, 17, 21
T_ID, T_SEATBID, T_CUR, T_NBR = b"\x0a", b"\x12", b"\x22", b"\x30"  # BidResponse 1, 2, 4, 6
T_SEAT_BID, T_SEAT = b"\x0a", b"\x12"  # SeatBid.bid = 1, seat = 2


class Encoder:
    """Turns the bids of a batch into responses; belongs to one snapshot."""

    def __init__(self, snapshot: Snapshot, signer: Signer) -> None:
        self.snapshot = snapshot
        self.signer = signer
        self._texts = np.empty((MAX_BATCH * MAX_IMPS, TOKEN_TEXT_BYTES), np.uint8)
        self._json_extra: dict[int, bytes] = {}
        self._pb_extra: dict[int, bytes] = {}
        seats = [str(seat) for seat in snapshot.meta["seats"]]
        self._seats_json = [b'{"seat":"' + seat.encode() + b'","bid":[' for seat in seats]
        self._seats_pb = [pb_bytes(T_SEAT, seat.encode()) for seat in seats]
        codes = [bytes(code) for code in snapshot.cur_code]
        self._cur_json = [b'],"cur":"' + code + b'"}' for code in codes]
        self._cur_pb = [pb_bytes(T_CUR, code) for code in codes]
        self._exp_json = [b',"exp":%d' % x if x > 0 else b"" for x in snapshot.ex_i[:, EX_EXP_S].tolist()]
        self._exp_pb = [T_BID_EXP + varint(x) if x > 0 else b"" for x in snapshot.ex_i[:, EX_EXP_S].tolist()]
        self._native = NativeCache()

    def _extra_json(self, creative: int) -> bytes:
        found = self._json_extra.get(creative)
        if found is None:
            row = self.snapshot.cr_i[creative].tolist()
            if row[CR_MEDIA] == BANNER and row[CR_W]:
                found = b',"w":%d,"h":%d' % (row[CR_W], row[CR_H])
            elif row[CR_MEDIA] == VIDEO:
                found = b',"dur":%d' % row[CR_DURATION_S]
            else:
                found = b""
            self._json_extra[creative] = found
        return found

    def _extra_pb(self, creative: int) -> bytes:
        found = self._pb_extra.get(creative)
        if found is None:
            row = self.snapshot.cr_i[creative].tolist()
            if row[CR_MEDIA] == BANNER and row[CR_W]:
                found = T_BID_W + varint(row[CR_W]) + T_BID_H + varint(row[CR_H])
            else:
                found = b""
            self._pb_extra[creative] = found
        return found

    def _native_text(self, batch: Batch, imp: list[int], creative: int) -> tuple[bytes, bytes, int]:
        start = imp[I_N_ASSETS0]
        assets = batch.pool[start : start + imp[I_N_ASSETSN] * ASSET_WIDTH]
        parts = self.snapshot.native(creative)
        return self._native.get(imp[I_N_HASH], creative, assets, imp[I_N_VER], bool(imp[I_N_WRAPPED]), parts)

    def responses(
        self,
        batch: Batch,
        q: I64,
        cand: I64,
        bids: I64,
        n_bids: int,
        first_bid: I64,
        records: U8,
        first_bid_id: int,
        answers: list[tuple[int, bytes]],
        kind: int,
    ) -> None:
        """Put (kind, response bytes) into ``answers`` for each request with bids.

        ``bids`` and ``first_bid`` as `price.select` left them, ``records`` uint8[n_bids, TOKEN_BYTES] packed token
        records, whose persons are encrypted on the way.
        """
        seal_records(n_bids, records, *self.signer.keys, self._texts)
        tokens = self._texts[:n_bids].tobytes()
        bid_rows = bids[:n_bids].tolist()
        cand_rows = cand[bids[:n_bids, B_CAND]].tolist()
        imp_rows = batch.imp[[row[C_IMP] for row in cand_rows]].tolist()
        li_seat = self.snapshot.li_i[[row[C_LI] for row in cand_rows], LI_SEAT].tolist()
        media = self.snapshot.cr_i[[row[C_CR] for row in cand_rows], CR_MEDIA].tolist()
        text = memoryview(batch.text)  # type: ignore[arg-type]
        starts = first_bid[: batch.n + 1].tolist()
        for r in range(batch.n):
            begin, end = starts[r], starts[r + 1]
            if begin == end:
                continue
            row = batch.req[r]
            exchange = int(row[R_EXCHANGE])
            encode_one = self._bid_json if row[R_FMT] == FMT_JSON else self._bid_pb
            by_seat: dict[int, list[bytes]] = {}
            for b in range(begin, end):
                token = tokens[b * TOKEN_TEXT_BYTES : (b + 1) * TOKEN_TEXT_BYTES]
                bid_id = b"%016x" % (first_bid_id + b)
                one = encode_one(batch, text, exchange, bid_rows[b], cand_rows[b], imp_rows[b], media[b], bid_id, token)
                by_seat.setdefault(li_seat[b], []).append(one)
            off = int(row[R_ID_OFF])
            request_id = bytes(text[off : off + int(row[R_ID_LEN])])
            currency = int(q[r, Q_CURRENCY])
            if row[R_FMT] == FMT_JSON:
                seatbids = b",".join(self._seats_json[seat] + b",".join(of) + b"]}" for seat, of in by_seat.items())
                answers[r] = kind, b'{"id":"' + request_id + b'","seatbid":[' + seatbids + self._cur_json[currency]
            else:
                parts = [pb_bytes(T_ID, request_id)]
                for seat, of in by_seat.items():
                    parts.append(pb_bytes(T_SEATBID, b"".join(of) + self._seats_pb[seat]))
                parts.append(self._cur_pb[currency])
                answers[r] = kind, b"".join(parts)

    def _bid_json(
        self, batch: Batch, text: memoryview, exchange: int, bid: list[int], cand: list[int], imp: list[int],
        media: int, bid_id: bytes, token: bytes,
    ) -> bytes:  # fmt: skip
        creative = cand[C_CR]
        extra = self._extra_json(creative) + self._exp_json[exchange]
        if media == BANNER and imp[I_B_SIZESN] and not self._json_extra[creative]:  # flexible: takes the slot's size
            size = int(batch.pool[imp[I_B_SIZES0]])
            extra += b',"w":%d,"h":%d' % (size >> 16, size & 0xFFFF)
        if cand[C_DEAL] >= 0:
            deal = batch.deal[cand[C_DEAL]]
            extra += b',"dealid":"' + bytes(text[deal[D_ID_OFF] : deal[D_ID_OFF] + deal[D_ID_LEN]]) + b'"'
        if media == NATIVE:
            _, escaped, tokens = self._native_text(batch, imp, creative)
            extra += b',"adm":"' + escaped % ((token,) * tokens) + b'"'
        price = b"%d.%03d" % divmod(bid[B_PRICE] // 1000, 1000)
        imp_id = bytes(text[imp[I_ID_OFF] : imp[I_ID_OFF] + imp[I_ID_LEN]])
        head = (bid_id, imp_id, price, extra)
        return self.snapshot.template_json(creative) % (head + (token,) * int(self.snapshot.tpl_tokens[creative, 0]))

    def _bid_pb(
        self, batch: Batch, text: memoryview, exchange: int, bid: list[int], cand: list[int], imp: list[int],
        media: int, bid_id: bytes, token: bytes,
    ) -> bytes:  # fmt: skip
        creative = cand[C_CR]
        imp_id = bytes(text[imp[I_ID_OFF] : imp[I_ID_OFF] + imp[I_ID_LEN]])
        body = (
            b"\x0a\x10" + bid_id + b"\x12" + varint(len(imp_id)) + imp_id + b"\x19" + _double(bid[B_PRICE] / 1e6)
            + self.snapshot.template_pb(creative) % ((token,) * int(self.snapshot.tpl_tokens[creative, 1]))
            + self._extra_pb(creative) + self._exp_pb[exchange]
        )  # fmt: skip
        if media == BANNER and imp[I_B_SIZESN] and not self._pb_extra[creative]:
            size = int(batch.pool[imp[I_B_SIZES0]])
            body += T_BID_W + varint(size >> 16) + T_BID_H + varint(size & 0xFFFF)
        if cand[C_DEAL] >= 0:
            deal = batch.deal[cand[C_DEAL]]
            body += pb_bytes(T_BID_DEAL, bytes(text[deal[D_ID_OFF] : deal[D_ID_OFF] + deal[D_ID_LEN]]))
        if media == NATIVE:
            plain, _, tokens = self._native_text(batch, imp, creative)
            body += pb_bytes(T_BID_ADM, plain % ((token,) * tokens))
        return pb_bytes(T_SEAT_BID, body)


def no_bid(batch: Batch, r: int, nbr: int) -> bytes:
    """A BidResponse with the request's id and the no-bid reason, in the request's format."""
    row = batch.req[r]
    request_id = batch.text[row[R_ID_OFF] : row[R_ID_OFF] + row[R_ID_LEN]].tobytes()
    if row[R_FMT] == FMT_JSON:
        return b'{"id":"%b","nbr":%d}' % (request_id, nbr)
    return pb_bytes(T_ID, request_id) + T_NBR + varint(nbr)
