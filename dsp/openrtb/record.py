"""The record both walkers fill: one flat int64 array holding the request, imp and deal under way and some scratch.

A column of `dsp.openrtb.columns` has a fixed place in it (``IMP + I_FLOOR``), so storing a decoded value is one store
whatever level it belongs to; a finished imp or deal is copied to its table and its part reset to ``DEFAULTS``.

    [0, IMP) request | [IMP, DEAL) imp | [DEAL, SCRATCH) deal | [SCRATCH, ROOM) scratch | list room | counters | stack
"""

from __future__ import annotations

import numpy as np

from dsp.openrtb import columns as c
from dsp.openrtb.limits import MAX_DEPTH

IMP = c.R_WIDTH
DEAL = IMP + c.I_WIDTH
SCRATCH = DEAL + c.D_WIDTH

_scratch = """
X_EIDS0 X_EIDSN X_CONSENT_OFF X_CONSENT_LEN X_GDPR X_USP_OFF X_USP_LEN X_GPP_OFF X_GPP_LEN X_GPPSID0 X_GPPSIDN X_DSA
X_SCHAIN_COMPLETE X_SCHAIN0 X_SCHAIN_NODES X_LANG X_CONTENT_LANG
B_W B_H F_W F_H F_WRATIO DF_MIN DF_MAX DF_FLOOR EID_SOURCE EID_FIRST UID_OFF UID_LEN NODE_ASI NODE_SID N_OWN_VER N_MARK
A_ID A_REQUIRED A_KIND A_TYPE A_LEN A_W A_H A_WMIN A_HMIN
""".split()
(
    S_X_EIDS0, S_X_EIDSN, S_X_CONSENT_OFF, S_X_CONSENT_LEN, S_X_GDPR, S_X_USP_OFF, S_X_USP_LEN, S_X_GPP_OFF,
    S_X_GPP_LEN, S_X_GPPSID0, S_X_GPPSIDN, S_X_DSA, S_X_SCHAIN_COMPLETE, S_X_SCHAIN0, S_X_SCHAIN_NODES,
    S_X_LANG, S_X_CONTENT_LANG,
    S_B_W, S_B_H, S_F_W, S_F_H, S_F_WRATIO, S_DF_MIN, S_DF_MAX, S_DF_FLOOR, S_EID_SOURCE, S_EID_FIRST,
    S_UID_OFF, S_UID_LEN, S_NODE_ASI, S_NODE_SID, S_N_OWN_VER, S_N_MARK,
    S_A_ID, S_A_REQUIRED, S_A_KIND, S_A_TYPE, S_A_LEN, S_A_W, S_A_H, S_A_WMIN, S_A_HMIN,
) = range(SCRATCH, SCRATCH + len(_scratch))  # fmt: skip

REGISTERS = SCRATCH + len(_scratch)

# A list that had to move (its values were interleaved with another's) owns the pool range [start, end): two words each.
ROOM = REGISTERS
COUNTERS = ROOM + 2 * REGISTERS
W_IMPS = COUNTERS  # rows used in the imp table
W_DEALS = COUNTERS + 1
W_POOL = COUNTERS + 2  # values used in the pool
W_TEXT = COUNTERS + 3  # bytes used in the text
W_NATIVES = COUNTERS + 4  # native imps of this request
W_ERR_AT = COUNTERS + 5  # where this request failed: offset into the text
W_ERR_ACTION = COUNTERS + 6  # and at which schema row (0 unknown)
W_ERR_CONTEXT = COUNTERS + 7
W_POOL_SIZE = COUNTERS + 8
W_DIALECT = COUNTERS + 9  # address of the request's dialect block (`dsp.openrtb.dialect`), 0 none
W_QUIRKS = COUNTERS + 10  # its Q_* flags
STACK = COUNTERS + 16  # two words a level
assert STACK + 2 * (MAX_DEPTH + 1) <= c.WORK_WORDS


def _defaults() -> c.I64:
    record = np.zeros(REGISTERS, np.int64)
    unset = [c.R_COPPA, c.R_GDPR, c.R_LMT, c.R_DNT, c.R_PIPL, c.R_SCHAIN_COMPLETE]
    unset += [IMP + c.I_SECURE, IMP + c.I_V_SKIP, S_X_GDPR, S_X_SCHAIN_COMPLETE]
    record[unset] = -1
    return record


DEFAULTS = _defaults()
