"""A snapshot made ready for the engine: arrays as kernels want them, and the few look-ups that Python does.

Built when a snapshot is swapped in, never per request; all of it can be derived again, nothing is state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.bidder.arms import Arms
from dsp.bidder.choose import Conditions
from dsp.bidder.fit import pack_ads
from dsp.bidder.rank import N_PRODUCTS, pack_items
from dsp.catalog.layout import (
    EX_FEE_PPM,
    EX_ID,
    EX_WIDTH,
    LI_CURRENCY,
    LI_END_S,
    LI_FLAGS,
    LI_ID,
    LI_MAX_BID,
    LI_PRODUCT,
    LI_START_S,
    LI_STRATEGY,
    LIF_DEAL_ONLY,
    LIF_PAUSED,
    LIV_PRIOR,
)
from dsp.catalog.snapshot import Snapshot
from dsp.model.features import line_features
from dsp.openrtb.dialect import Dialects
from dsp.openrtb.hashing import hash_text

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

MAX_DOMAINS = 8  # of one advertiser, parents included, that a deal's wadomain may name


class PlanError(Exception):
    """A snapshot the engine cannot work with."""


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view: numba compiles per writability, and a mapped snapshot is read-only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _bits(flags: npt.NDArray[np.bool_], words: int) -> U64:
    """A bitmap uint64[words] of bool[L]."""
    padded = np.zeros(words * 64, bool)
    padded[: len(flags)] = flags
    return np.packbits(padded, bitorder="little").view(np.uint64)


def _domain_hashes(domains: list[str]) -> list[int]:
    """Hashes of the domains and of the parents they are under ("m.bank.com", "bank.com")."""
    names: list[str] = []
    for domain in domains:
        parts = domain.lower().removeprefix("www.").split(".")
        names += [".".join(parts[k:]) for k in range(len(parts) - 1)]
    return [hash_text(name) for name in dict.fromkeys(names)][:MAX_DOMAINS]


def _widened(table: I64, width: int) -> I64:
    """``table`` with the columns that came after an earlier release wrote it, all 0."""
    return np.pad(table, ((0, 0), (0, max(0, width - table.shape[1]))))


class Plan:
    """What the kernels and the encoder read of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Derive; raises `PlanError` when USD, the currency that bids are compared in, has no rate."""
        self.snapshot = snapshot
        self.version = snapshot.version
        self.li_i: I64 = frozen(snapshot.li_i)
        self.li_v: F64 = frozen(snapshot.li_v)
        self.lines: F32 = frozen(line_features(self.li_i, self.li_v))
        self.cr_i: I64 = frozen(snapshot.cr_i)
        self.ex_i: I64 = frozen(_widened(snapshot.ex_i, EX_WIDTH))
        self.caps: I64 = frozen(snapshot.caps)
        self.cr_caps: I32 = frozen(snapshot.cr_caps)
        self.capped = len(snapshot.caps) > 0
        shapes, ads = pack_ads(snapshot.cr_i)
        self.open_auction: U64 = frozen(
            _bits((snapshot.li_i[:, LI_FLAGS] & LIF_DEAL_ONLY) == 0, snapshot.rows.shape[1])
        )
        self.shapes: I64 = frozen(shapes)
        self.ad: I64 = frozen(ads)
        self.item: I32 = frozen(pack_items(snapshot.li_i))
        self.product: I32 = frozen(np.clip(snapshot.li_i[:, LI_PRODUCT], 0, N_PRODUCTS - 1).astype(np.int32))
        self.rows: U64 = frozen(snapshot.rows)
        self.dim_keys: U64 = frozen(snapshot.dim_keys)
        self.dim_rows: I32 = frozen(snapshot.dim_rows)
        self.dim_any: I32 = frozen(snapshot.dim_any)
        self.dim_used: U8 = frozen(snapshot.dim_used)
        self.cur_hash: I64 = frozen(snapshot.cur_hash)
        self.cur_usd: F64 = frozen(snapshot.cur_usd)
        self.seat_hash: I64 = frozen(snapshot.seat_hash)
        self.ids: I64 = np.ascontiguousarray(snapshot.li_i[:, LI_ID])
        self.n = len(self.ids)
        self.arms = Arms(snapshot.meta.get("experiments", []), self.ids, snapshot.cr_i)
        self.conditions = Conditions(snapshot)
        self.choosing = self.conditions.there or self.arms.own_ads
        self.usd = hash_text("USD")
        if self.usd not in snapshot.cur_hash.tolist():
            raise PlanError(f"snapshot {snapshot.version}: no rate for USD; add it to the catalog's currencies")
        account_usd = snapshot.cur_usd[snapshot.li_i[:, LI_CURRENCY]]
        fixed = snapshot.li_i[:, LI_STRATEGY] == 1
        value = np.where(fixed, snapshot.li_i[:, LI_MAX_BID] * 1e-9, snapshot.li_v[:, LIV_PRIOR])
        self.prior: F64 = np.maximum(value * account_usd, 1e-9)
        self.weight: F32 = self.prior.astype(np.float32)
        self.cap: F64 = snapshot.li_i[:, LI_MAX_BID] * account_usd
        self.account_usd: F64 = account_usd
        self.fixed_bid: U8 = fixed.astype(np.uint8)
        self.cur_code = np.frombuffer(snapshot.cur_code.astype("S3").tobytes(), np.uint8).reshape(-1, 3)
        fees = 1.0 + self.ex_i[:, EX_FEE_PPM] * 1e-6  # as `price.select` computes it
        rates = snapshot.cur_usd[:, None] / snapshot.cur_usd[None, :]
        self.fx_bits: I64 = (rates[None, :, :] * fees[:, None, None]).view(np.int64)
        advertisers = snapshot.meta["advertisers"]
        self.adv_domains: I64 = np.zeros((max(1, len(advertisers)), MAX_DOMAINS), np.int64)
        for a, advertiser in enumerate(advertisers):
            hashes = _domain_hashes(list(advertiser["domains"]))
            self.adv_domains[a, : len(hashes)] = hashes
        exchanges = snapshot.meta["exchanges"]
        self.exchange_names = [str(x["name"]) for x in exchanges]
        self.exchange_tokens = [str(x.get("token") or "") for x in exchanges]
        self.by_name = {name: i for i, name in enumerate(self.exchange_names)}
        self.exchange_callers = [(str(x.get("client_header") or ""), tuple(x.get("ips", ()))) for x in exchanges]
        # Over gRPC a token is all that is seen: who must show more comes by HTTP.
        self.by_token = {
            token: i for i, token in enumerate(self.exchange_tokens) if token and self.exchange_callers[i] == ("", ())
        }
        self.exchange_ids: I64 = np.ascontiguousarray(snapshot.ex_i[:, EX_ID])
        self.dialects = Dialects(snapshot.dialect_words, snapshot.dialect_first)
        words = snapshot.rows.shape[1]
        self.live: U64 = np.zeros(words, np.uint64)
        self.start_s: I64 = np.ascontiguousarray(snapshot.li_i[:, LI_START_S])
        self.end_s: I64 = np.ascontiguousarray(snapshot.li_i[:, LI_END_S])
        self.paused: I64 = np.ascontiguousarray(snapshot.li_i[:, LI_FLAGS] & LIF_PAUSED)

    def refresh_live(self, now_s: int, available: I64, multiplier: F64) -> None:
        """Recompute which line items are in flight, unpaused and have money left, and what ranking weighs them by."""
        np.multiply(self.prior, multiplier, out=self.weight, casting="same_kind")
        _live(self.start_s, self.end_s, self.paused, available, now_s, self.live)


@kernel
def _live(start_s: I64, end_s: I64, paused: I64, available: I64, now_s: int, out: U64) -> None:
    for w in range(out.shape[0]):
        word = np.uint64(0)
        for b in range(min(64, start_s.shape[0] - (w << 6))):
            i = (w << 6) + b
            if paused[i] == 0 and start_s[i] <= now_s < end_s[i] and available[i] > 0:
                word |= np.uint64(1) << np.uint64(b)
        out[w] = word
