"""A batch of bid requests as columns: what every stage after decode sees, whatever the wire was.

One int64 table per level (request, imp, deal) plus a pool for lists. Numbers are plain, money is CPM micros, flags are
0/1 with -1 for "not said" (unset is not false), strings are (offset, length) into ``Batch.text`` and, where they are
compared, a 64-bit hash (`dsp.openrtb.hashing`). Everything is preallocated and reused: decoding a batch allocates
nothing per request. Why int64 only: numba kernels then take three arrays instead of forty.

Invariant: every (offset, length) lies inside ``text[:text_len]``, every (start, count) inside ``pool[:pool_len]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.openrtb.limits import MAX_BATCH, MAX_DEALS_PER_IMP, MAX_IMPS

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

# --- wire formats and media -------------------------------------------------------------------------------------
FMT_JSON = 0
FMT_PROTOBUF = 1

BANNER = 1  # bits of I_MEDIA
VIDEO = 2
AUDIO = 4
NATIVE = 8

CHANNEL_NONE = 0
CHANNEL_SITE = 1
CHANNEL_APP = 2
CHANNEL_DOOH = 3

# --- decode status (R_STATUS) -----------------------------------------------------------------------------------
OK = 0
E_SYNTAX = 1  # not JSON / not this message
E_UTF8 = 2
E_TYPE = 3  # a field the bidder reads has the wrong type
E_NUMBER = 4  # NaN, infinite or out of range
E_DEPTH = 5
E_NO_ID = 6
E_NO_IMP = 7
E_IMP_ID = 8  # imp without an id
E_DUP_IMP_ID = 9
E_TRUNCATED = 10
E_LIMIT = 11  # more list values than a batch can hold

# --- request row ------------------------------------------------------------------------------------------------
_request = """
STATUS ERR_AT FMT EXCHANGE
ID_OFF ID_LEN IMP0 IMPN IMPS_DROPPED
AT TMAX TEST ALLIMPS CATTAX
CUR0 CURN BCAT0 BCATN ACAT0 ACATN BADV0 BADVN BAPP0 BAPPN WSEAT0 WSEATN BSEAT0 BSEATN WLANG0 WLANGN
CHANNEL CH_ID DOMAIN BUNDLE PUBLISHER CAT0 CATN PAGE_OFF PAGE_LEN CONTENT_LANG
DEVICETYPE CONNECTIONTYPE LMT DNT OS LANG UA_OFF UA_LEN MAKE MODEL UTCOFFSET
COUNTRY REGION CITY ZIP METRO LAT_MICRO LON_MICRO
IP_OFF IP_LEN IPV6_OFF IPV6_LEN IFA_OFF IFA_LEN
DIDMD5_OFF DIDMD5_LEN DIDSHA1_OFF DIDSHA1_LEN DPIDMD5_OFF DPIDMD5_LEN DPIDSHA1_OFF DPIDSHA1_LEN
USER_ID_OFF USER_ID_LEN BUYERUID_OFF BUYERUID_LEN YOB GENDER EIDS0 EIDSN
CONSENT_OFF CONSENT_LEN COPPA GDPR USP_OFF USP_LEN GPP_OFF GPP_LEN GPPSID0 GPPSIDN PIPL
SCHAIN_COMPLETE SCHAIN0 SCHAIN_NODES TID DSA_REQUIRED
HOST_OFF HOST_LEN
""".split()
_imp = """
REQ ID_OFF ID_LEN FLOOR FLOORCUR SECURE INSTL TAGID MEDIA EXP RWDD PRIVATE_AUCTION DEAL0 DEALN
B_SIZES0 B_SIZESN B_FLEX B_BATTR B_BTYPE B_API B_POS B_MIMES0 B_MIMESN
V_W V_H V_MINDUR V_MAXDUR V_PROTOCOLS V_API V_BATTR V_SKIP V_PLCMT V_STARTDELAY V_LINEARITY V_MIMES0 V_MIMESN
V_RQDDURS0 V_RQDDURSN V_PODDUR V_MAXSEQ V_MAXEXTENDED V_MINCPMPERSEC V_DURFLOORS0 V_DURFLOORSN
N_REQ_OFF N_REQ_LEN N_HASH N_VER N_BATTR N_API N_ASSETS0 N_ASSETSN N_WRAPPED N_BAD
""".split()
_deal = """
ID_OFF ID_LEN ID FLOOR FLOORCUR AT WSEAT0 WSEATN WADOMAIN0 WADOMAINN DURFLOORS0 DURFLOORSN
""".split()

# Spelled out so that numba sees plain int constants and readers can grep them.
(
    R_STATUS, R_ERR_AT, R_FMT, R_EXCHANGE,
    R_ID_OFF, R_ID_LEN, R_IMP0, R_IMPN, R_IMPS_DROPPED,
    R_AT, R_TMAX, R_TEST, R_ALLIMPS, R_CATTAX,
    R_CUR0, R_CURN, R_BCAT0, R_BCATN, R_ACAT0, R_ACATN, R_BADV0, R_BADVN, R_BAPP0, R_BAPPN,
    R_WSEAT0, R_WSEATN, R_BSEAT0, R_BSEATN, R_WLANG0, R_WLANGN,
    R_CHANNEL, R_CH_ID, R_DOMAIN, R_BUNDLE, R_PUBLISHER, R_CAT0, R_CATN, R_PAGE_OFF, R_PAGE_LEN, R_CONTENT_LANG,
    R_DEVICETYPE, R_CONNECTIONTYPE, R_LMT, R_DNT, R_OS, R_LANG, R_UA_OFF, R_UA_LEN, R_MAKE, R_MODEL, R_UTCOFFSET,
    R_COUNTRY, R_REGION, R_CITY, R_ZIP, R_METRO, R_LAT_MICRO, R_LON_MICRO,
    R_IP_OFF, R_IP_LEN, R_IPV6_OFF, R_IPV6_LEN, R_IFA_OFF, R_IFA_LEN,
    R_DIDMD5_OFF, R_DIDMD5_LEN, R_DIDSHA1_OFF, R_DIDSHA1_LEN,
    R_DPIDMD5_OFF, R_DPIDMD5_LEN, R_DPIDSHA1_OFF, R_DPIDSHA1_LEN,
    R_USER_ID_OFF, R_USER_ID_LEN, R_BUYERUID_OFF, R_BUYERUID_LEN, R_YOB, R_GENDER, R_EIDS0, R_EIDSN,
    R_CONSENT_OFF, R_CONSENT_LEN, R_COPPA, R_GDPR, R_USP_OFF, R_USP_LEN, R_GPP_OFF, R_GPP_LEN,
    R_GPPSID0, R_GPPSIDN, R_PIPL,
    R_SCHAIN_COMPLETE, R_SCHAIN0, R_SCHAIN_NODES, R_TID, R_DSA_REQUIRED,
    R_HOST_OFF, R_HOST_LEN,  # the host whose hash R_DOMAIN is: its parent domains are its suffixes
) = range(len(_request))  # fmt: skip
R_WIDTH = len(_request)

(
    I_REQ, I_ID_OFF, I_ID_LEN, I_FLOOR, I_FLOORCUR, I_SECURE, I_INSTL, I_TAGID, I_MEDIA, I_EXP, I_RWDD,
    I_PRIVATE_AUCTION, I_DEAL0, I_DEALN,
    I_B_SIZES0, I_B_SIZESN, I_B_FLEX, I_B_BATTR, I_B_BTYPE, I_B_API, I_B_POS, I_B_MIMES0, I_B_MIMESN,
    I_V_W, I_V_H, I_V_MINDUR, I_V_MAXDUR, I_V_PROTOCOLS, I_V_API, I_V_BATTR, I_V_SKIP, I_V_PLCMT, I_V_STARTDELAY,
    I_V_LINEARITY, I_V_MIMES0, I_V_MIMESN, I_V_RQDDURS0, I_V_RQDDURSN, I_V_PODDUR, I_V_MAXSEQ, I_V_MAXEXTENDED,
    I_V_MINCPMPERSEC, I_V_DURFLOORS0, I_V_DURFLOORSN,
    I_N_REQ_OFF, I_N_REQ_LEN, I_N_HASH, I_N_VER, I_N_BATTR, I_N_API, I_N_ASSETS0, I_N_ASSETSN, I_N_WRAPPED, I_N_BAD,
) = range(len(_imp))  # fmt: skip
I_WIDTH = len(_imp)

(
    D_ID_OFF, D_ID_LEN, D_ID, D_FLOOR, D_FLOORCUR, D_AT, D_WSEAT0, D_WSEATN, D_WADOMAIN0, D_WADOMAINN,
    D_DURFLOORS0, D_DURFLOORSN,
) = range(len(_deal))  # fmt: skip
D_WIDTH = len(_deal)

REQUEST_COLUMNS: tuple[str, ...] = tuple(_request)
IMP_COLUMNS: tuple[str, ...] = tuple(_imp)
DEAL_COLUMNS: tuple[str, ...] = tuple(_deal)

WORK_WORDS = 2048  # of the decoder's scratch

# Pool records wider than one value; the count of such a list counts records.
EID_WIDTH = 3  # source hash, id offset, id length
NODE_WIDTH = 2  # of R_SCHAIN0: hashes of asi and sid, 0 absent
DURFLOOR_WIDTH = 3  # mindur, maxdur (-1 unset), floor CPM micros
ASSET_WIDTH = 8  # id (-1 when it has none), required, kind, type, len, w, h, flags
NO_SIZE = 0xFFFF_FFFF  # of I_B_SIZES: a size nothing has (a negative or absurd one was asked for)
ASSET_TITLE = 1  # kind; `len` = the title's limit
ASSET_IMG = 2  # `type` = 1 icon, 3 main; w/h exact, or minimal where flag bit 0 (w) / 1 (h) is set
ASSET_VIDEO = 3
ASSET_DATA = 4  # `type` = data asset type; `len` = limit (0 none)
ASSET_OTHER = 5


class Batch:
    """The columns of one batch and its text; owned by one engine, reused for every batch.

    ``text`` holds the bodies one after another, then the unescaped copies that JSON strings with escapes need.
    ``req`` is int64[MAX_BATCH, R_WIDTH], ``imp`` int64[n, I_WIDTH], ``deal`` int64[n, D_WIDTH], ``pool`` int64[n].
    """

    def __init__(self, text_bytes: int = 4 << 20) -> None:
        """Allocate for ``MAX_BATCH`` requests and ``text_bytes`` of text.

        Rows are allocated for the worst legal batch (untouched pages cost nothing); `decode_batch` replaces ``text``
        and ``pool`` by larger ones if a batch needs it, bounded by MAX_BATCH_BYTES: read them after decoding.
        """
        self.n = 0
        self.req: I64 = np.zeros((MAX_BATCH, R_WIDTH), np.int64)
        self.imp: I64 = np.zeros((MAX_BATCH * MAX_IMPS, I_WIDTH), np.int64)
        self.deal: I64 = np.zeros((MAX_BATCH * MAX_IMPS * MAX_DEALS_PER_IMP, D_WIDTH), np.int64)
        self.pool: I64 = np.zeros(text_bytes // 2, np.int64)
        self.text: U8 = np.zeros(text_bytes, np.uint8)
        self.counts: I64 = np.zeros(4, np.int64)  # imps, deals, pool values, text bytes in use
        self.spans: I64 = np.zeros((MAX_BATCH, 4), np.int64)  # length, format, pre-check, dialect of each body
        self.work: I64 = np.zeros(WORK_WORDS, np.int64)  # the decoder's scratch (dsp.openrtb.record)

    def string(self, row: I64, off_column: int) -> bytes:
        """The raw bytes of the string whose offset is in ``row[off_column]`` (its length follows it)."""
        off, length = int(row[off_column]), int(row[off_column + 1])
        return self.text[off : off + length].tobytes()


assert MAX_IMPS <= 255
