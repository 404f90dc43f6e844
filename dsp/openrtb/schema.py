"""Which fields of a bid request the bidder reads, and what becomes of each: one table that drives both walkers.

A row says: in this context (message), the JSON key and the protobuf field number, what kind of value, where it goes.
Anything not listed is skipped. A *context* is a message at a place: `user.eids[]` and `user.ext.eids[]` are two, as
their values go to different columns. Where OpenRTB 2.5 put a field under ``ext``, the value goes to a scratch column
and is used only where the 2.6 field is absent (`FALLBACKS`).

Compiled at import into the flat arrays the kernels index: `FIELD_OF` (protobuf) is dense, `KEYS` (JSON) is a perfect
hash per context, with a multiplier searched for so that no two known keys of a context share a slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dsp.openrtb import columns as c
from dsp.openrtb import record as r

# --- kinds of value -------------------------------------------------------------------------------------------------
(
    SKIP,
    OBJECT,  # descend into a context
    OBJECTS,  # a list of them
    EXT,  # an object whose wrong type is ignored, as ext is anybody's
    TEXT,  # offset and length
    ID,  # the same, must be a string, kept as it was written (escapes too); its UTF-8 is checked
    DEAL_ID,  # ID and the hash of its text
    HASH,  # hash_bytes of the text
    HOST,  # hash of the host, without scheme, port, path and "www."
    LANG,  # hash of the primary subtag
    COUNTRY,  # hash; two letters are translated to three
    REGION,  # hash without a country prefix ("US-CA" is CA)
    GENDER,  # first letter, upper case
    VERSION,  # "1.2" is 12
    HASHES,  # a list of hashes in the pool
    HOSTS,
    LANGS,
    INT,  # clamped to int32
    FLAG,  # 0 or 1, from bool or number
    MASK,  # a list of small numbers, as bits
    INTS,  # a list of numbers in the pool
    MONEY,  # CPM micros, rounded up, never negative
    MICRO,  # degrees in millionths
    NATIVE,  # a native request: JSON in a string, or the object itself; walked after the request
) = range(24)  # fmt: skip
FIRST_TEXT, LAST_TEXT = TEXT, LANGS
FIRST_NUMBER, LAST_NUMBER = INT, MICRO

# --- what entering or leaving a context does ------------------------------------------------------------------------
(
    NOTHING,
    ON_IMP,
    ON_BANNER,
    ON_VIDEO,
    ON_AUDIO,
    ON_NATIVE,
    ON_DEAL,
    ON_SITE,
    ON_APP,
    ON_DOOH,
    ON_FORMAT,
    ON_VIDEO_DURFLOOR,
    ON_DEAL_DURFLOOR,
    ON_EID,
    ON_EXT_EID,
    ON_UID,
    ON_EXT_UID,
    ON_NODE,
    ON_EXT_NODE,
    ON_NATIVE_OBJECT,
    ON_WRAPPED,
    ON_ASSET,
    ON_TITLE,
    ON_IMG,
    ON_ASSET_VIDEO,
    ON_DATA,
) = range(26)  # fmt: skip


class Field(NamedTuple):
    """One row: JSON key, protobuf number (0: none), kind, record column, context to descend into."""

    key: str
    number: int
    kind: int
    column: int = 0
    context: str = ""


F = Field
I, D = r.IMP, r.DEAL  # noqa: E741 (the column prefixes)

_publisher = [F("id", 1, HASH, c.R_PUBLISHER)]
_content = [F("language", 19, LANG, c.R_CONTENT_LANG), F("langb", 29, LANG, r.S_X_CONTENT_LANG)]
_cats = [F("cat", 4, HASHES, c.R_CAT0), F("sectioncat", 5, HASHES, c.R_CAT0), F("pagecat", 6, HASHES, c.R_CAT0)]
_channel = [F("id", 1, HASH, c.R_CH_ID)]
_node = [F("asi", 1, HASH, r.S_NODE_ASI), F("sid", 2, HASH, r.S_NODE_SID)]
_native_request = [
    F("ver", 1, VERSION, r.S_N_OWN_VER),
    F("assets", 6, OBJECTS, 0, "native.assets"),
]


def _durfloor() -> list[Field]:
    return [F("mindur", 1, INT, r.S_DF_MIN), F("maxdur", 2, INT, r.S_DF_MAX), F("bidfloor", 3, MONEY, r.S_DF_FLOOR)]


# context -> (what entering and leaving it does, its fields). The first is what is never read.
SCHEMA: dict[str, tuple[int, list[Field]]] = {
    "": (NOTHING, []),
    "request": (
        NOTHING,
        [
            F("id", 1, ID, c.R_ID_OFF),
            F("imp", 2, OBJECTS, 0, "imp"),
            F("site", 3, OBJECT, 0, "site"),
            F("app", 4, OBJECT, 0, "app"),
            F("dooh", 22, OBJECT, 0, "dooh"),
            F("device", 5, OBJECT, 0, "device"),
            F("user", 6, OBJECT, 0, "user"),
            F("regs", 14, OBJECT, 0, "regs"),
            F("source", 19, OBJECT, 0, "source"),
            F("test", 15, FLAG, c.R_TEST),
            F("at", 7, INT, c.R_AT),
            F("tmax", 8, INT, c.R_TMAX),
            F("allimps", 10, FLAG, c.R_ALLIMPS),
            F("cattax", 21, INT, c.R_CATTAX),
            F("cur", 11, HASHES, c.R_CUR0),
            F("bcat", 12, HASHES, c.R_BCAT0),
            F("acat", 23, HASHES, c.R_ACAT0),
            F("badv", 13, HOSTS, c.R_BADV0),
            F("bapp", 16, HASHES, c.R_BAPP0),
            F("wseat", 9, HASHES, c.R_WSEAT0),
            F("bseat", 17, HASHES, c.R_BSEAT0),
            F("wlang", 18, LANGS, c.R_WLANG0),
            F("wlangb", 20, LANGS, c.R_WLANG0),
        ],
    ),
    "imp": (
        ON_IMP,
        [
            F("id", 1, ID, I + c.I_ID_OFF),
            F("banner", 2, OBJECT, 0, "imp.banner"),
            F("video", 3, OBJECT, 0, "imp.video"),
            F("audio", 15, OBJECT, 0, "imp.audio"),
            F("native", 13, OBJECT, 0, "imp.native"),
            F("pmp", 11, OBJECT, 0, "imp.pmp"),
            F("bidfloor", 8, MONEY, I + c.I_FLOOR),
            F("bidfloorcur", 9, HASH, I + c.I_FLOORCUR),
            F("secure", 12, FLAG, I + c.I_SECURE),
            F("instl", 6, FLAG, I + c.I_INSTL),
            F("tagid", 7, HASH, I + c.I_TAGID),
            F("exp", 14, INT, I + c.I_EXP),
            F("rwdd", 18, FLAG, I + c.I_RWDD),
        ],
    ),
    "imp.banner": (
        ON_BANNER,
        [
            F("format", 15, OBJECTS, 0, "imp.banner.format"),
            F("w", 1, INT, r.S_B_W),
            F("h", 2, INT, r.S_B_H),
            F("battr", 6, MASK, I + c.I_B_BATTR),
            F("btype", 5, MASK, I + c.I_B_BTYPE),
            F("api", 10, MASK, I + c.I_B_API),
            F("pos", 4, INT, I + c.I_B_POS),
            F("mimes", 7, HASHES, I + c.I_B_MIMES0),
        ],
    ),
    "imp.banner.format": (
        ON_FORMAT,
        [F("w", 1, INT, r.S_F_W), F("h", 2, INT, r.S_F_H), F("wratio", 3, INT, r.S_F_WRATIO)],
    ),
    "imp.video": (
        ON_VIDEO,
        [
            F("mimes", 1, HASHES, I + c.I_V_MIMES0),
            F("minduration", 3, INT, I + c.I_V_MINDUR),
            F("maxduration", 4, INT, I + c.I_V_MAXDUR),
            F("startdelay", 8, INT, I + c.I_V_STARTDELAY),
            F("maxseq", 28, INT, I + c.I_V_MAXSEQ),
            F("poddur", 29, INT, I + c.I_V_PODDUR),
            F("protocols", 21, MASK, I + c.I_V_PROTOCOLS),
            F("protocol", 5, MASK, I + c.I_V_PROTOCOLS),
            F("w", 6, INT, I + c.I_V_W),
            F("h", 7, INT, I + c.I_V_H),
            F("rqddurs", 32, INTS, I + c.I_V_RQDDURS0),
            F("plcmt", 35, INT, I + c.I_V_PLCMT),
            F("linearity", 2, INT, I + c.I_V_LINEARITY),
            F("skip", 23, FLAG, I + c.I_V_SKIP),
            F("mincpmpersec", 34, MONEY, I + c.I_V_MINCPMPERSEC),
            F("battr", 10, MASK, I + c.I_V_BATTR),
            F("maxextended", 11, INT, I + c.I_V_MAXEXTENDED),
            F("api", 19, MASK, I + c.I_V_API),
            F("durfloors", 36, OBJECTS, 0, "imp.video.durfloors"),
        ],
    ),
    "imp.video.durfloors": (ON_VIDEO_DURFLOOR, _durfloor()),
    "imp.audio": (ON_AUDIO, []),
    "imp.native": (
        ON_NATIVE,
        [
            F("request", 1, NATIVE, I + c.I_N_REQ_OFF),  # `request_native` would want an `adm_native` in return
            F("ver", 2, VERSION, I + c.I_N_VER),
            F("api", 3, MASK, I + c.I_N_API),
            F("battr", 4, MASK, I + c.I_N_BATTR),
        ],
    ),
    "imp.native.request": (ON_NATIVE_OBJECT, []),
    "imp.pmp": (
        NOTHING,
        [
            F("private_auction", 1, FLAG, I + c.I_PRIVATE_AUCTION),
            F("deals", 2, OBJECTS, 0, "imp.pmp.deals"),
        ],
    ),
    "imp.pmp.deals": (
        ON_DEAL,
        [
            F("id", 1, DEAL_ID, D + c.D_ID_OFF),
            F("bidfloor", 2, MONEY, D + c.D_FLOOR),
            F("bidfloorcur", 3, HASH, D + c.D_FLOORCUR),
            F("at", 6, INT, D + c.D_AT),
            F("wseat", 4, HASHES, D + c.D_WSEAT0),
            F("wadomain", 5, HOSTS, D + c.D_WADOMAIN0),
            F("durfloors", 9, OBJECTS, 0, "imp.pmp.deals.durfloors"),
        ],
    ),
    "imp.pmp.deals.durfloors": (ON_DEAL_DURFLOOR, _durfloor()),
    "site": (
        ON_SITE,
        [
            *_channel,
            *_cats,
            F("domain", 3, HOST, c.R_DOMAIN),
            F("page", 7, TEXT, c.R_PAGE_OFF),
            F("publisher", 11, OBJECT, 0, "publisher"),
            F("content", 12, OBJECT, 0, "content"),
        ],
    ),
    "app": (
        ON_APP,
        [
            *_channel,
            *_cats,
            F("domain", 3, HOST, c.R_DOMAIN),
            F("bundle", 8, HASH, c.R_BUNDLE),
            F("publisher", 11, OBJECT, 0, "publisher"),
            F("content", 12, OBJECT, 0, "content"),
        ],
    ),
    "dooh": (
        ON_DOOH,
        [
            *_channel,
            F("domain", 6, HOST, c.R_DOMAIN),
            F("publisher", 5, OBJECT, 0, "publisher"),
            F("content", 8, OBJECT, 0, "content"),
        ],
    ),
    "publisher": (NOTHING, _publisher),
    "content": (NOTHING, _content),
    "device": (
        NOTHING,
        [
            F("geo", 4, OBJECT, 0, "device.geo"),
            F("dnt", 1, FLAG, c.R_DNT),
            F("lmt", 23, FLAG, c.R_LMT),
            F("ua", 2, TEXT, c.R_UA_OFF),
            F("ip", 3, TEXT, c.R_IP_OFF),
            F("ipv6", 9, TEXT, c.R_IPV6_OFF),
            F("devicetype", 18, INT, c.R_DEVICETYPE),
            F("make", 12, HASH, c.R_MAKE),
            F("model", 13, HASH, c.R_MODEL),
            F("os", 14, HASH, c.R_OS),
            F("language", 11, LANG, c.R_LANG),
            F("langb", 32, LANG, r.S_X_LANG),
            F("connectiontype", 17, INT, c.R_CONNECTIONTYPE),
            F("ifa", 20, TEXT, c.R_IFA_OFF),
            F("didsha1", 5, TEXT, c.R_DIDSHA1_OFF),
            F("didmd5", 6, TEXT, c.R_DIDMD5_OFF),
            F("dpidsha1", 7, TEXT, c.R_DPIDSHA1_OFF),
            F("dpidmd5", 8, TEXT, c.R_DPIDMD5_OFF),
        ],
    ),
    "device.geo": (
        NOTHING,
        [
            F("lat", 1, MICRO, c.R_LAT_MICRO),
            F("lon", 2, MICRO, c.R_LON_MICRO),
            F("country", 3, COUNTRY, c.R_COUNTRY),
            F("region", 4, REGION, c.R_REGION),
            F("metro", 6, HASH, c.R_METRO),
            F("city", 7, HASH, c.R_CITY),
            F("zip", 8, HASH, c.R_ZIP),
            F("utcoffset", 10, INT, c.R_UTCOFFSET),
        ],
    ),
    "user": (
        NOTHING,
        [
            F("id", 1, TEXT, c.R_USER_ID_OFF),
            F("buyeruid", 2, TEXT, c.R_BUYERUID_OFF),
            F("yob", 3, INT, c.R_YOB),
            F("gender", 4, GENDER, c.R_GENDER),
            F("consent", 10, TEXT, c.R_CONSENT_OFF),
            F("eids", 11, OBJECTS, 0, "user.eids"),
            F("ext", 99, EXT, 0, "user.ext"),
        ],
    ),
    "user.ext": (
        NOTHING,
        [F("consent", 1, TEXT, r.S_X_CONSENT_OFF), F("eids", 2, OBJECTS, 0, "user.ext.eids")],
    ),
    "user.eids": (ON_EID, [F("source", 1, HASH, r.S_EID_SOURCE), F("uids", 2, OBJECTS, 0, "user.eids.uids")]),
    "user.eids.uids": (ON_UID, [F("id", 1, TEXT, r.S_UID_OFF)]),
    "user.ext.eids": (
        ON_EXT_EID,
        [F("source", 1, HASH, r.S_EID_SOURCE), F("uids", 2, OBJECTS, 0, "user.ext.eids.uids")],
    ),
    "user.ext.eids.uids": (ON_EXT_UID, [F("id", 1, TEXT, r.S_UID_OFF)]),
    "regs": (
        NOTHING,
        [
            F("coppa", 1, FLAG, c.R_COPPA),
            F("gdpr", 4, FLAG, c.R_GDPR),
            F("us_privacy", 5, TEXT, c.R_USP_OFF),
            F("gpp", 2, TEXT, c.R_GPP_OFF),
            F("gpp_sid", 3, INTS, c.R_GPPSID0),
            F("ext", 99, EXT, 0, "regs.ext"),
        ],
    ),
    "regs.ext": (
        NOTHING,
        [
            F("gdpr", 1, FLAG, r.S_X_GDPR),
            F("us_privacy", 2, TEXT, r.S_X_USP_OFF),
            F("gpp", 0, TEXT, r.S_X_GPP_OFF),
            F("gpp_sid", 0, INTS, r.S_X_GPPSID0),
            F("dsa", 4, EXT, 0, "regs.ext.dsa"),
            F("pipl", 500, FLAG, c.R_PIPL),
        ],
    ),
    "regs.ext.dsa": (NOTHING, [F("dsarequired", 1, INT, c.R_DSA_REQUIRED)]),
    "source": (
        NOTHING,
        [
            F("tid", 2, HASH, c.R_TID),
            F("schain", 4, OBJECT, 0, "source.schain"),
            F("ext", 99, EXT, 0, "source.ext"),
        ],
    ),
    "source.ext": (NOTHING, [F("schain", 1, EXT, 0, "source.ext.schain")]),
    "source.schain": (
        NOTHING,
        [F("complete", 1, FLAG, c.R_SCHAIN_COMPLETE), F("nodes", 2, OBJECTS, 0, "source.schain.nodes")],
    ),
    "source.schain.nodes": (ON_NODE, _node),
    "source.ext.schain": (
        NOTHING,
        [F("complete", 1, FLAG, r.S_X_SCHAIN_COMPLETE), F("nodes", 2, OBJECTS, 0, "source.ext.schain.nodes")],
    ),
    "source.ext.schain.nodes": (ON_EXT_NODE, _node),
    # The native request, a document of its own; exchanges send it bare or as {"native": {...}}.
    "native": (NOTHING, [*_native_request, F("native", 0, OBJECT, 0, "native.native")]),
    "native.native": (ON_WRAPPED, _native_request),
    "native.assets": (
        ON_ASSET,
        [
            F("id", 1, INT, r.S_A_ID),
            F("required", 2, FLAG, r.S_A_REQUIRED),
            F("title", 3, OBJECT, 0, "native.assets.title"),
            F("img", 4, OBJECT, 0, "native.assets.img"),
            F("video", 5, OBJECT, 0, "native.assets.video"),
            F("data", 6, OBJECT, 0, "native.assets.data"),
        ],
    ),
    "native.assets.title": (ON_TITLE, [F("len", 1, INT, r.S_A_LEN)]),
    "native.assets.img": (
        ON_IMG,
        [
            F("type", 1, INT, r.S_A_TYPE),
            F("w", 2, INT, r.S_A_W),
            F("h", 3, INT, r.S_A_H),
            F("wmin", 4, INT, r.S_A_WMIN),
            F("hmin", 5, INT, r.S_A_HMIN),
        ],
    ),
    "native.assets.video": (ON_ASSET_VIDEO, []),
    "native.assets.data": (ON_DATA, [F("type", 1, INT, r.S_A_TYPE), F("len", 2, INT, r.S_A_LEN)]),
}

# (column, where OpenRTB 2.5 put it, words, absent value): used at the end of a request where the first is absent.
FALLBACKS: tuple[tuple[int, int, int, int], ...] = (
    (c.R_CONSENT_LEN, r.S_X_CONSENT_LEN, 2, 0),
    (c.R_USP_LEN, r.S_X_USP_LEN, 2, 0),
    (c.R_GPP_LEN, r.S_X_GPP_LEN, 2, 0),
    (c.R_GPPSIDN, r.S_X_GPPSIDN, 2, 0),
    (c.R_EIDSN, r.S_X_EIDSN, 2, 0),
    (c.R_GDPR, r.S_X_GDPR, 1, -1),
    (c.R_SCHAIN_COMPLETE, r.S_X_SCHAIN_COMPLETE, 1, -1),
    (c.R_SCHAIN_NODES, r.S_X_SCHAIN_NODES, 2, 0),
    (c.R_LANG, r.S_X_LANG, 1, 0),
    (c.R_CONTENT_LANG, r.S_X_CONTENT_LANG, 1, 0),
)

# Objects that only an exchange's dialect knows ("imp.ext.rp") are read in one of these (`dsp.openrtb.dialect`).
SPARES = 24

CONTEXTS: tuple[str, ...] = (*SCHEMA, *(f"spare.{k}" for k in range(SPARES)))
C_SPARE = len(SCHEMA)
C_REQUEST = CONTEXTS.index("request")
C_IMP = CONTEXTS.index("imp")
C_DEAL = CONTEXTS.index("imp.pmp.deals")
C_NATIVE_OBJECT = CONTEXTS.index("imp.native.request")

FIELD_SPAN = 128  # protobuf numbers a context can have: 0..99 as they are, extensions 500..527 as 100..127
MAX_KEY = 16  # bytes of the longest known JSON key
SLOT = 3  # words of a `KEYS` slot: first 8 bytes, last 8 bytes, (action << 8 | length)

ROWS: list[tuple[str, Field]] = [
    ("", F("", 0, SKIP)),
    ("", F("", 0, OBJECT, 0, "request")),
    ("", F("", 0, OBJECT, 0, "native")),
]
A_SKIP, A_REQUEST, A_NATIVE = 0, 1, 2  # actions: rows that no key leads to
ROWS += [(name, field) for name, (_, fields) in SCHEMA.items() for field in fields]
A_SPARE = len(ROWS)  # row A_SPARE + k opens spare context k
ROWS += [("", F("", 0, EXT, 0, f"spare.{k}")) for k in range(SPARES)]
assert len(ROWS) < 1 << 15

KIND_OF = np.array([f.kind for _, f in ROWS], np.int64)
COLUMN_OF = np.array([f.column for _, f in ROWS], np.int64)
CONTEXT_OF = np.array([CONTEXTS.index(f.context) for _, f in ROWS], np.int64)
HOOK_OF = np.array([hook for hook, _ in SCHEMA.values()] + [NOTHING] * SPARES, np.int64)


def field_slot(number: int) -> int:
    """Where `FIELD_OF` keeps a field number, within its context."""
    return number if number < 100 else number - 400


def _field_of() -> npt.NDArray[np.int16]:
    table = np.zeros(len(CONTEXTS) * FIELD_SPAN, np.int16)
    for action, (name, field) in enumerate(ROWS):
        if field.number:
            table[CONTEXTS.index(name) * FIELD_SPAN + field_slot(field.number)] = action
    return table


FIELD_OF = _field_of()

_U64 = (1 << 64) - 1


def key_words(key: bytes) -> tuple[int, int]:
    """The two words a key is compared by: its first and last eight bytes (short keys: themselves, and zero)."""
    if len(key) <= 8:
        return int.from_bytes(key, "little"), 0
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[-8:], "little")


def key_slot(words: tuple[int, int], multiplier: int, shift: int) -> int:
    """The slot of a key in its context's table; the JSON walker computes the same."""
    return (((words[0] ^ (words[1] >> 3)) * multiplier) & _U64) >> shift


def _keys() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """(slots of all contexts, and per context: multiplier, shift, first slot)."""
    slots: list[tuple[int, int, int]] = []
    multipliers, shifts, firsts = [], [], []
    for name in CONTEXTS:
        known = [(f.key.encode(), action) for action, (n, f) in enumerate(ROWS) if f.key and n == name]
        assert all(len(key) <= MAX_KEY for key, _ in known)
        bits = max(1, (2 * len(known) - 1).bit_length())
        multiplier = 0x9E3779B97F4A7C15
        while True:
            placed = {key_slot(key_words(key), multiplier, 64 - bits): (key, action) for key, action in known}
            if len(placed) == len(known):
                break
            multiplier = (multiplier * 0xD1342543DE82EF95 + 0xDA3E39CB94B95BDB) & _U64 | 1
        multipliers.append(multiplier)
        shifts.append(64 - bits)
        firsts.append(len(slots))
        for slot in range(1 << bits):
            key, action = placed.get(slot, (b"\0", 0))
            slots.append((*key_words(key), action << 8 | len(key)))
    as_u64 = [np.array(v, np.uint64) for v in (slots, multipliers, shifts)]
    return as_u64[0].reshape(-1), as_u64[1], as_u64[2], np.array(firsts, np.int64)


KEYS, KEY_MULTIPLIER, KEY_SHIFT, KEY_FIRST = _keys()


def path_of(action: int, context: int) -> str:
    """The dotted path of a field ("imp.banner.w"), or of the object around an unknown one."""
    name, field = ROWS[action]
    if not field.key:
        name = CONTEXTS[context] if context < len(CONTEXTS) else ""
        return "" if name == "request" else name
    return field.key if name == "request" else f"{name}.{field.key}"
