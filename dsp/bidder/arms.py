"""Experiments in the engine: which arm a person is in, and what that changes for each candidate.

A person's arm is a hash of who they are (the subject of frequency counting) and of the experiment, so it stays the same
for as long as the experiment runs, on every worker, without anything being stored. People we may not count are in no
arm and are bid for as usual. A control arm's candidates go all the way through pricing and selection and are then not
bid but logged, so that those who would have been bid for are compared with those who were ("ghost bids", after
G. Johnson, R. Lewis, E. Nubbemeyer, *Ghost ads*, 2017).

Nothing of this runs while no experiment does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsp.base.kernel import kernel
from dsp.base.money import convert_up, impression_micros
from dsp.bidder.gate import Q_CURRENCY
from dsp.bidder.price import ARM_CHALLENGER, ARM_CREATIVES, ARM_GHOST, B_CAND, B_PRICE, B_RESERVE
from dsp.bidder.rank import C_ARM, C_ARM_FLAGS, C_BOOST, C_EXPERIMENT, C_IMP, C_LI, C_UNIT
from dsp.catalog.layout import CR_ID, CR_LINE_ITEM, LI_CURRENCY
from dsp.openrtb.columns import I_REQ, R_TEST
from dsp.openrtb.hashing import mix64

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]

# --- experiments int64[E, E_WIDTH], their arms int64[m, A_WIDTH] -----------------------------------------------------
(
    E_ID,
    E_ARM0,  # first of its arms
    E_ARMS,
) = range(3)
E_WIDTH = 3
(
    A_UPTO,  # hashes below it, in 2^32 parts, are in this arm or one before it
    A_FLAGS,  # ARM_*
    A_BOOST,  # multiplier less 1, millionths
) = range(3)
A_WIDTH = 3
MAX_GHOSTS = 4096


class Arms:
    """The running experiments of one snapshot, as the kernels read them."""

    def __init__(self, experiments: list[dict[str, Any]], ids: I64, cr_i: I64) -> None:
        """``experiments`` as of the snapshot's meta; ``ids`` int64[L] of line items, ``cr_i`` of the snapshot."""
        running = [e for e in experiments if e["status"] == "active" and e["line_items"]]
        self.of_line_item: I32 = np.full(len(ids), -1, np.int32)
        self.experiments: I64 = np.zeros((max(1, len(running)), E_WIDTH), np.int64)
        arms: list[tuple[int, int, int]] = []
        self.creatives: U8 = np.full(len(cr_i), 255, np.uint8)  # bit per number of the arms that may show it
        for e, experiment in enumerate(running):
            self.of_line_item[np.isin(ids, experiment["line_items"])] = e
            self.experiments[e] = experiment["id"], len(arms), len(experiment["arms"])
            upto = 0.0
            own = self.of_line_item[cr_i[:, CR_LINE_ITEM]] == e
            for k, arm in enumerate(experiment["arms"]):
                upto += arm["share"]
                flags = ARM_GHOST * arm["control"] | ARM_CHALLENGER * (arm["model"] == "challenger")
                if arm["only"] is not None:
                    flags |= ARM_CREATIVES
                    self.creatives[own & ~np.isin(cr_i[:, CR_ID], arm["only"])] &= np.uint8(255 - (1 << k))
                arms.append((round(min(upto, 1.0) * 2**32), flags, round((arm["bid"] - 1.0) * 1e6)))
        self.arms: I64 = np.array(arms, np.int64).reshape(-1, A_WIDTH)
        self.running = bool(running)
        self.own_ads = bool(arms and (self.arms[:, A_FLAGS] & ARM_CREATIVES).any())
        self.challenge = bool(arms and (self.arms[:, A_FLAGS] & ARM_CHALLENGER).any())
        self.ghosts = bool(arms and (self.arms[:, A_FLAGS] & ARM_GHOST).any())


@kernel
def person_hash(subject: U8, experiment: int) -> np.uint64:
    """The hash of a person (16 bytes, themselves a keyed hash) in an experiment: high half the draw, low half the unit.

    Every person is drawn anew in every experiment.
    """
    h = np.uint64(experiment) * np.uint64(0x9E3779B97F4A7C15)
    for half in range(2):
        word = np.uint64(0)
        for k in range(8):
            word |= np.uint64(subject[8 * half + k]) << np.uint64(8 * k)
        h = mix64(h ^ word) + np.uint64(0x9E3779B97F4A7C15)
    return mix64(h)


@kernel
def enter_arms(
    n: int, cand: I64, imp: I64, subjects: U8, known: I64, of_line_item: I32, experiments: I64, arms: I64,
    challenged: bool,
) -> None:  # fmt: skip
    """Note on each candidate the arm of its person.

    ``subjects`` uint8[requests, 16] and ``known`` of `States`; ``challenged``: there is a shadowing model, without
    which an arm that asks for it is as no arm. Tables of `Arms`.
    """
    for c in range(n):
        r = imp[cand[c, C_IMP], I_REQ]
        e = of_line_item[cand[c, C_LI]]
        if e < 0 or known[r] == 0:
            continue
        h = person_hash(subjects[r], experiments[e, E_ID])
        draw = np.int64(h >> np.uint64(32))
        for k in range(experiments[e, E_ARMS]):
            arm = experiments[e, E_ARM0] + k
            if draw >= arms[arm, A_UPTO]:
                continue
            flags = arms[arm, A_FLAGS]
            if flags & ARM_CHALLENGER and not challenged:
                break
            cand[c, C_EXPERIMENT] = experiments[e, E_ID]
            cand[c, C_ARM] = k + 1
            cand[c, C_UNIT] = np.int64(h & np.uint64(0xFFFFFFFF))
            cand[c, C_ARM_FLAGS] = flags
            cand[c, C_BOOST] = arms[arm, A_BOOST]
            break


@kernel
def list_ghosts(
    n: int, cand: I64, imp: I64, req: I64, q: I64, li_i: I64, cur_usd: npt.NDArray[np.float64], bid_cpm: I64, out: I64
) -> int:
    """The bids that select kept from control people, as rows of ``out`` int64[m, B_WIDTH]; how many. None of tests."""
    count = 0
    for c in range(n):
        r = imp[cand[c, C_IMP], I_REQ]
        if bid_cpm[c] >= 0 or req[r, R_TEST] == 1 or count == out.shape[0]:
            continue
        fx = cur_usd[q[r, Q_CURRENCY]] / cur_usd[li_i[cand[c, C_LI], LI_CURRENCY]]
        out[count, B_CAND], out[count, B_PRICE] = c, -bid_cpm[c]
        out[count, B_RESERVE] = convert_up(impression_micros(-bid_cpm[c]), fx)
        count += 1
    return count


def units_of(subjects: U8, experiment: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """(unit uint32[n], draw in [0, 1) float64[n]) of people by subject uint8[n, 16], as the bidder has them."""
    hashes = np.zeros(len(subjects), np.uint64)
    _hash_people(np.array(subjects, np.uint8), experiment, hashes)
    return (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32), (hashes >> np.uint64(32)) / 2.0**32


@kernel
def _hash_people(subjects: U8, experiment: int, out: U64) -> None:
    for i in range(subjects.shape[0]):
        out[i] = person_hash(subjects[i], experiment)
