"""An independent, slow reading of a bid request, for comparing with the decoder: plain dicts in, plain dicts out.

`expected` reads what ``json.loads`` (or the official protobuf library, through `pb_to_json`) gives; `decoded` reads the
columns. Both give the same shape. `RefusedError` is what `expected` raises for a request the decoder must refuse.
"""

import json
import math
from decimal import Decimal
from typing import Any

from dsp.openrtb import columns as c
from dsp.openrtb.columns import Batch
from dsp.openrtb.countries import ALPHA3
from dsp.openrtb.hashing import hash_text
from dsp.openrtb.limits import (
    MAX_ASSETS,
    MAX_DEALS_PER_IMP,
    MAX_DEPTH,
    MAX_EIDS,
    MAX_IMPS,
    MAX_LIST_NUMBERS,
    MAX_SIZES_PER_IMP,
)

INT32 = (1 << 31) - 1


class RefusedError(Exception):
    """The decoder must refuse this request."""


class DuplicateKeyError(Exception):
    """An object has a key twice: readers differ on what that means."""


def load(body: bytes) -> Any:
    """What ``json.loads`` says, strictly by RFC 8259. Raises RefusedError, or DuplicateKeyError."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise DuplicateKeyError
        return out

    try:
        text = body.decode()
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=unique, parse_float=Number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(str(error)) from None
    if not isinstance(value, dict) or depth(value) > MAX_DEPTH:
        raise RefusedError("no object, or too deep")
    return value


class Number(float):
    """A JSON float that remembers how it was written."""

    def __new__(cls, text: str) -> "Number":
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str


def depth(value: Any) -> int:
    """Nesting of containers."""
    deepest, level = 0, [value]
    while level:
        level = [
            child
            for v in level
            for child in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())
            if isinstance(child, dict | list)
        ]
        deepest += 1
    return deepest


# --- values as the decoder takes them ---------------------------------------------------------------------------------


def number(value: Any) -> float | int | None:
    """A number, also in a string; None if absent."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=lambda _: None, parse_float=Number)
        except ValueError:
            raise RefusedError(f"not a number: {value!r}") from None
        if value is None or isinstance(value, bool | str | list | dict) or value != value:
            raise RefusedError("not a number")
    if not isinstance(value, int | float):
        raise RefusedError(f"not a number: {value!r}")
    return value


def strict_number_text(value: Any) -> None:
    """A number in a string must be the number alone, without space."""
    if isinstance(value, str) and value != value.strip():
        raise RefusedError("space around a number")


def integer(value: Any, absent: int = 0) -> int:
    strict_number_text(value)
    if (n := number(value)) is None:
        return absent
    if math.isinf(n):
        return INT32 if n > 0 else -INT32 - 1
    whole = int(Decimal(n.text)) if isinstance(n, Number) else int(n)
    return max(-INT32 - 1, min(INT32, whole))


def flag(value: Any, absent: int = 0) -> int:
    strict_number_text(value)
    if (n := number(value)) is None:
        return absent
    if isinstance(n, Number):
        return int(Decimal(n.text) != 0)
    return int(n != 0)


def money(value: Any) -> int:
    if isinstance(value, bool):
        raise RefusedError("money as a boolean")
    strict_number_text(value)
    if (n := number(value)) is None:
        return 0
    x = float(n) if isinstance(n, float) or abs(n) < 1 << 64 else math.copysign(1e300, n)
    if not x <= 1e12:
        raise RefusedError("money out of range")
    return price_micros(x)


def price_micros(x: float) -> int:
    """The smallest whole number of micros whose price is at least ``x``, by search."""
    if x <= 0:
        return 0
    if x * 1e6 >= 1 << 53:  # micros are no longer exact as doubles
        return math.ceil(x * 1e6)
    low, high = 0, int(x * 1e6) + 4096
    while low < high:
        middle = (low + high) // 2
        if middle / 1e6 >= x:
            high = middle
        else:
            low = middle + 1
    return low


def degrees(value: Any) -> int:
    if isinstance(value, bool):
        raise RefusedError("degrees as a boolean")
    strict_number_text(value)
    n = number(value)
    if n is None or not -360 <= n <= 360:
        return 0
    return math.floor(float(n) * 1e6 + 0.5)


def text(value: Any) -> bytes:
    """Text; numbers as they were written."""
    if value is None:
        return b""
    if isinstance(value, bool | list | dict):
        raise RefusedError(f"not text: {value!r}")
    if isinstance(value, Number):
        return value.text.encode()
    try:
        return str(value).encode()
    except UnicodeEncodeError:
        raise RefusedError("half a surrogate pair") from None


def texts(value: Any) -> list[bytes]:
    """A list of texts, or a single one."""
    values = value if isinstance(value, list) else [value]
    return [t for v in values if (t := text(v))]


def hashed(value: Any) -> int:
    return hash_text(text(value))


def host(value: bytes) -> bytes:
    head, scheme, _ = value[: 16 + 2].partition(b"://")
    if scheme and len(head) < 16:
        value = value[len(head) + 3 :]
    elif value.startswith(b"//"):
        value = value[2:]
    for mark in b"/?#":
        value = value.split(bytes([mark]))[0]
    value = value.rsplit(b"@", 1)[-1].split(b":")[0].removesuffix(b".")
    return value[4:] if value[:4].lower() == b"www." and len(value) > 4 else value


def subtag(value: bytes) -> bytes:
    return value.replace(b"_", b"-").split(b"-")[0]


def obj(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise RefusedError(f"no object: {value!r}")
    return value


def ext(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise RefusedError("no list of objects")
    return value


def mask(*values: Any) -> int:
    bits = 0
    for value in values:
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, bool):
                raise RefusedError("a boolean in a list of numbers")
            n = integer(v)
            bits |= 1 << n if 0 < n < 63 else 0
    return bits


def integers(value: Any) -> list[int]:
    out = []
    for v in value if isinstance(value, list) else [value]:
        if isinstance(v, bool):
            raise RefusedError("a boolean in a list of numbers")
        if v is not None and v != "":
            out.append(integer(v))
    return out[:MAX_LIST_NUMBERS]


def durfloors(value: Any) -> list[tuple[int, int, int]]:
    rows = [
        (integer(d.get("mindur"), -1), integer(d.get("maxdur"), -1), money(d.get("bidfloor"))) for d in objects(value)
    ]
    return rows[:MAX_LIST_NUMBERS]


def gender(value: Any) -> int:
    first = text(value)[:1]
    return ord(first.upper()) if first else 0


def country(value: Any) -> int:
    raw = text(value)
    known = ALPHA3.get(raw.decode("latin1").upper()) if raw.isascii() else None
    return hash_text(known or raw)


def region(value: Any) -> int:
    raw = text(value)
    if len(raw) > 3 and raw[2:3] == b"-" and raw[:2].decode("latin1").isalpha() and raw[:2].isascii():
        raw = raw[3:]
    return hash_text(raw)


# --- the request ------------------------------------------------------------------------------------------------------


def expected_eids(value: Any) -> list[tuple[int, bytes]]:
    out = []
    for eid in objects(value):
        source = hashed(eid.get("source"))
        out += [(source, i) for uid in objects(eid.get("uids")) if (i := text(uid.get("id")))]
    return out[:MAX_EIDS]


def expected_schain(value: dict[str, Any] | None) -> tuple[int, list[tuple[int, int]]]:
    if value is None:
        return -1, []
    nodes = [(hashed(node.get("asi")), hashed(node.get("sid"))) for node in objects(value.get("nodes"))]
    return flag(value.get("complete"), -1), nodes


def expected(request: dict[str, Any]) -> dict[str, Any]:
    """The request as the decoder should see it. Raises RefusedError where it should refuse it."""
    r = request.get
    imps = objects(r("imp"))
    considered = [expected_imp(imp) for imp in imps[:MAX_IMPS]]
    request_id = r("id")
    if isinstance(request_id, bool | list | dict):
        raise RefusedError("id")
    if not isinstance(request_id, str) or not request_id or not imps:
        raise RefusedError("id or imp")
    if len({imp["id"] for imp in considered}) != len(considered):
        raise RefusedError("duplicate imp id")
    out: dict[str, Any] = {
        "id": request_id,
        "dropped": len(imps) - len(considered),
        "imps": considered,
        "at": integer(r("at")),
        "tmax": integer(r("tmax")),
        "test": flag(r("test")),
        "allimps": flag(r("allimps")),
        "cattax": integer(r("cattax")),
        "badv": [hash_text(h) for t in texts(r("badv")) if (h := host(t))],
        "wlang": sorted(hash_text(s) for key in ("wlang", "wlangb") for t in texts(r(key)) if (s := subtag(t))),
    }
    for key in ("cur", "bcat", "acat", "bapp", "wseat", "bseat"):
        out[key] = [hash_text(t) for t in texts(r(key))]
    out |= expected_channel(request)
    out |= expected_device(obj(r("device")) or {})
    out |= expected_person(request)
    return out


def expected_channel(request: dict[str, Any]) -> dict[str, Any]:
    channels = [
        (key, value) for key in request if key in ("site", "app", "dooh") and (value := obj(request[key])) is not None
    ]
    out: dict[str, Any] = {
        "channel": 0, "ch_id": 0, "domain": 0, "host": b"", "bundle": 0, "publisher": 0, "cat": [], "page": b"",
        "content_lang": 0,
    }  # fmt: skip
    for key, value in channels:  # every one is read, so every one can be wrong; the last counts
        publisher, content = obj(value.get("publisher")) or {}, obj(value.get("content")) or {}
        page = text(value.get("page")) if key == "site" else b""
        domain = text(value.get("domain"))
        name = host(domain) or (host(page) if page else b"")
        cats = [] if key == "dooh" else [t for k in ("cat", "sectioncat", "pagecat") for t in texts(value.get(k))]
        language = subtag(text(content.get("language"))), subtag(text(content.get("langb")))
        out = {
            "channel": {"site": c.CHANNEL_SITE, "app": c.CHANNEL_APP, "dooh": c.CHANNEL_DOOH}[key],
            "ch_id": hashed(value.get("id")),
            "domain": hash_text(name),
            "host": name,
            "bundle": hashed(value.get("bundle")) if key == "app" else 0,
            "publisher": hashed(publisher.get("id")),
            "cat": sorted(hash_text(t) for t in cats),
            "page": page,
            "content_lang": hash_text(language[0] or language[1]),
        }
    return out


DEVICE_TEXTS = ("ua", "ip", "ipv6", "ifa", "didmd5", "didsha1", "dpidmd5", "dpidsha1")


def expected_device(device: dict[str, Any]) -> dict[str, Any]:
    d = device.get
    geo = (obj(d("geo")) or {}).get
    language = subtag(text(d("language"))), subtag(text(d("langb")))
    out: dict[str, Any] = {key: text(d(key)) for key in DEVICE_TEXTS}
    return out | {
        "devicetype": integer(d("devicetype")),
        "connectiontype": integer(d("connectiontype")),
        "lmt": flag(d("lmt"), -1),
        "dnt": flag(d("dnt"), -1),
        "os": hashed(d("os")),
        "make": hashed(d("make")),
        "model": hashed(d("model")),
        "lang": hash_text(language[0] or language[1]),
        "country": country(geo("country")),
        "region": region(geo("region")),
        "city": hashed(geo("city")),
        "zip": hashed(geo("zip")),
        "metro": hashed(geo("metro")),
        "utcoffset": integer(geo("utcoffset")),
        "lat": degrees(geo("lat")),
        "lon": degrees(geo("lon")),
    }


def expected_person(request: dict[str, Any]) -> dict[str, Any]:
    user, regs = obj(request.get("user")) or {}, obj(request.get("regs")) or {}
    source = obj(request.get("source")) or {}
    user_ext, regs_ext, source_ext = ext(user.get("ext")), ext(regs.get("ext")), ext(source.get("ext"))
    eids, other_eids = expected_eids(user.get("eids")), expected_eids(user_ext.get("eids"))
    sids, other_sids = integers(regs.get("gpp_sid")), integers(regs_ext.get("gpp_sid"))
    chain, other = expected_schain(obj(source.get("schain"))), expected_schain(ext(source_ext.get("schain")))
    direct, extended = flag(regs.get("gdpr"), -1), flag(regs_ext.get("gdpr"), -1)
    consent, other_consent = text(user.get("consent")), text(user_ext.get("consent"))
    usp, other_usp = text(regs.get("us_privacy")), text(regs_ext.get("us_privacy"))
    gpp, other_gpp = text(regs.get("gpp")), text(regs_ext.get("gpp"))
    return {
        "user_id": text(user.get("id")),
        "buyeruid": text(user.get("buyeruid")),
        "yob": integer(user.get("yob")),
        "gender": gender(user.get("gender")),
        "eids": eids or other_eids,
        "consent": consent or other_consent,
        "coppa": flag(regs.get("coppa"), -1),
        "gdpr": extended if direct == -1 else direct,
        "usp": usp or other_usp,
        "gpp": gpp or other_gpp,
        "gpp_sid": sids or other_sids,
        "pipl": flag(regs_ext.get("pipl"), -1),
        "tid": hashed(source.get("tid")),
        "schain": (other[0] if chain[0] == -1 else chain[0], chain[1] or other[1]),
        "dsa": integer(ext(regs_ext.get("dsa")).get("dsarequired")),
    }


def expected_imp(imp: dict[str, Any]) -> dict[str, Any]:
    i = imp.get
    imp_id = i("id")
    if not isinstance(imp_id, str) or not imp_id:
        raise RefusedError("imp id")
    banner, video, audio, native = (obj(i(k)) for k in ("banner", "video", "audio", "native"))
    pmp = obj(i("pmp")) or {}
    out: dict[str, Any] = {
        "id": imp_id,
        "floor": money(i("bidfloor")),
        "floorcur": hashed(i("bidfloorcur")),
        "secure": flag(i("secure"), -1),
        "instl": flag(i("instl")),
        "rwdd": flag(i("rwdd")),
        "tagid": hashed(i("tagid")),
        "exp": integer(i("exp")),
        "private_auction": flag(pmp.get("private_auction")),
        "deals": [d for deal in objects(pmp.get("deals"))[:MAX_DEALS_PER_IMP] if (d := expected_deal(deal))],
    }
    out |= expected_banner(banner or {})
    out |= expected_video(video or {})
    out |= expected_native(native)
    bits = (banner is not None) * c.BANNER | (video is not None) * c.VIDEO | (audio is not None) * c.AUDIO
    out["media"] = bits | (native is not None and not out["n_bad"]) * c.NATIVE
    return out


def expected_deal(deal: dict[str, Any]) -> dict[str, Any] | None:
    deal_id = deal.get("id")
    if isinstance(deal_id, bool | list | dict):
        raise RefusedError("deal id")
    out = {
        "id": deal_id,
        "hash": hash_text(deal_id.encode(errors="surrogatepass")) if isinstance(deal_id, str) else 0,
        "floor": money(deal.get("bidfloor")),
        "floorcur": hashed(deal.get("bidfloorcur")),
        "at": integer(deal.get("at")),
        "wseat": [hash_text(t) for t in texts(deal.get("wseat"))],
        "wadomain": [hash_text(h) for t in texts(deal.get("wadomain")) if (h := host(t))],
        "durfloors": durfloors(deal.get("durfloors")),
    }
    if isinstance(deal_id, str):
        text(deal_id)
    return out if isinstance(deal_id, str) and deal_id else None


def banner_size(w: int, h: int, ratio: int | None) -> int | None:
    """The pool's number for a format (or, without ``ratio``, the banner's own size)."""
    if min(w, h) < 0 or max(w, h) > 65535:
        return c.NO_SIZE
    if ratio is not None and w > 0 and h == 0 and ratio <= 0:
        return c.NO_SIZE
    return w << 16 | h if w and h else None


def expected_banner(banner: dict[str, Any]) -> dict[str, Any]:
    b = banner.get
    formats = [(integer(f.get("w")), integer(f.get("h")), integer(f.get("wratio"))) for f in objects(b("format"))]
    sizes = [*formats, (integer(b("w")), integer(b("h")), None)]
    return {
        "sizes": [size for s in sizes if (size := banner_size(*s)) is not None][:MAX_SIZES_PER_IMP],
        "flex": int(any(ratio > 0 for _, _, ratio in formats)),
        "b_battr": mask(b("battr")),
        "b_btype": mask(b("btype")),
        "b_api": mask(b("api")),
        "b_pos": integer(b("pos")),
        "b_mimes": [hash_text(t) for t in texts(b("mimes"))],
    }


VIDEO_INTS = {
    "v_w": "w", "v_h": "h", "v_mindur": "minduration", "v_maxdur": "maxduration", "v_plcmt": "plcmt",
    "v_startdelay": "startdelay", "v_linearity": "linearity", "v_poddur": "poddur", "v_maxseq": "maxseq",
    "v_maxextended": "maxextended",
}  # fmt: skip


def expected_video(video: dict[str, Any]) -> dict[str, Any]:
    v = video.get
    return {name: integer(v(key)) for name, key in VIDEO_INTS.items()} | {
        "v_mimes": [hash_text(t) for t in texts(v("mimes"))],
        "v_protocols": mask(v("protocols"), v("protocol")),
        "v_api": mask(v("api")),
        "v_battr": mask(v("battr")),
        "v_skip": flag(v("skip"), -1),
        "v_rqddurs": integers(v("rqddurs")),
        "v_mincpmpersec": money(v("mincpmpersec")),
        "v_durfloors": durfloors(v("durfloors")),
    }


def version(value: Any) -> int:
    raw = text(value).decode("latin1")
    if not raw[:1].isascii() or not raw[:1].isdigit():
        return 0
    minor = raw[2] if raw[1:2] == "." and raw[2:3] in set("0123456789") and raw[2:3] else "0"
    return int(raw[0]) * 10 + int(minor)


def expected_native(native: dict[str, Any] | None) -> dict[str, Any]:
    absent = {"n_bad": 0, "n_ver": 0, "n_assets": [], "n_wrapped": 0, "n_battr": 0, "n_api": 0}
    if native is None:
        return absent
    out = absent | {
        "n_ver": version(native.get("ver")),
        "n_battr": mask(native.get("battr")),
        "n_api": mask(native.get("api")),
    }
    requests = []
    for key in native:
        if key == "request" and native[key] is not None:
            if not isinstance(native[key], str | dict):
                raise RefusedError("native request")
            requests.append(native[key])
    try:
        if not requests:
            raise RefusedError("no native request")
        document = requests[-1]
        if isinstance(document, str):
            document = load(document.encode())
        inner = obj(document.get("native"))
        out["n_wrapped"] = int(inner is not None)
        assets, own = [], 0
        for part in [inner or {} if key == "native" else {key: document[key]} for key in document]:
            assets += objects(part.get("assets"))
            own = version(part.get("ver")) or own
        if len(assets) > MAX_ASSETS:
            raise RefusedError("too many assets")
        out["n_assets"] = [expected_asset(a) for a in assets]
        out["n_ver"] = own or out["n_ver"]
    except (RefusedError, UnicodeEncodeError):
        out["n_bad"] = 1
        out["n_wrapped"] = 0
        out["n_assets"] = []
    return out


def expected_asset(asset: dict[str, Any]) -> tuple[int, ...]:
    head = integer(asset["id"]) if asset.get("id") is not None else -1, flag(asset.get("required"))
    tail = c.ASSET_OTHER, 0, 0, 0, 0, 0
    for key, member in asset.items():  # the last of several counts
        if key not in ("title", "img", "video", "data") or (value := obj(member)) is None:
            continue
        if key == "title":
            tail = c.ASSET_TITLE, 0, integer(value.get("len")), 0, 0, 0
        elif key == "data":
            tail = c.ASSET_DATA, integer(value.get("type")), integer(value.get("len")), 0, 0, 0
        elif key == "video":
            tail = c.ASSET_VIDEO, 0, 0, 0, 0, 0
        else:
            w, h, wmin, hmin = (integer(value.get(k)) for k in ("w", "h", "wmin", "hmin"))
            small = w == 0 and wmin > 0, h == 0 and hmin > 0
            flags = small[0] | small[1] << 1
            tail = c.ASSET_IMG, integer(value.get("type")), 0, wmin if small[0] else w, hmin if small[1] else h, flags
    return head + tail


# --- the columns ------------------------------------------------------------------------------------------------------


def decoded(batch: Batch, row: int) -> dict[str, Any]:
    """Request ``row`` of a batch in the shape of `expected`."""
    req, json_ids = batch.req[row], batch.req[row, c.R_FMT] == c.FMT_JSON

    def values(table: Any, start: int, width: int = 1) -> list[Any]:
        first, count = int(table[start]), int(table[start + 1])
        assert 0 <= first <= first + count * width <= batch.counts[2] or count == 0
        flat = batch.pool[first : first + count * width].tolist()
        return flat if width == 1 else [tuple(flat[k : k + width]) for k in range(0, len(flat), width)]

    def identity(table: Any, column: int) -> str:
        raw = batch.string(table, column).decode()
        return str(json.loads(f'"{raw}"')) if json_ids else raw

    names = {
        "at": c.R_AT, "tmax": c.R_TMAX, "test": c.R_TEST, "allimps": c.R_ALLIMPS, "cattax": c.R_CATTAX,
        "channel": c.R_CHANNEL, "ch_id": c.R_CH_ID, "domain": c.R_DOMAIN, "bundle": c.R_BUNDLE,
        "publisher": c.R_PUBLISHER, "content_lang": c.R_CONTENT_LANG, "devicetype": c.R_DEVICETYPE,
        "connectiontype": c.R_CONNECTIONTYPE, "lmt": c.R_LMT, "dnt": c.R_DNT, "os": c.R_OS, "make": c.R_MAKE,
        "model": c.R_MODEL, "lang": c.R_LANG, "country": c.R_COUNTRY, "region": c.R_REGION, "city": c.R_CITY,
        "zip": c.R_ZIP, "metro": c.R_METRO, "utcoffset": c.R_UTCOFFSET, "lat": c.R_LAT_MICRO, "lon": c.R_LON_MICRO,
        "yob": c.R_YOB, "gender": c.R_GENDER, "coppa": c.R_COPPA, "gdpr": c.R_GDPR, "pipl": c.R_PIPL,
        "dsa": c.R_DSA_REQUIRED, "tid": c.R_TID, "dropped": c.R_IMPS_DROPPED,
    }  # fmt: skip
    spans = {
        "host": c.R_HOST_OFF, "page": c.R_PAGE_OFF, "ua": c.R_UA_OFF, "ip": c.R_IP_OFF, "ipv6": c.R_IPV6_OFF,
        "ifa": c.R_IFA_OFF, "didmd5": c.R_DIDMD5_OFF, "didsha1": c.R_DIDSHA1_OFF, "dpidmd5": c.R_DPIDMD5_OFF,
        "dpidsha1": c.R_DPIDSHA1_OFF, "user_id": c.R_USER_ID_OFF, "buyeruid": c.R_BUYERUID_OFF,
        "consent": c.R_CONSENT_OFF, "usp": c.R_USP_OFF, "gpp": c.R_GPP_OFF,
    }  # fmt: skip
    lists = {
        "cur": c.R_CUR0, "bcat": c.R_BCAT0, "acat": c.R_ACAT0, "badv": c.R_BADV0, "bapp": c.R_BAPP0,
        "wseat": c.R_WSEAT0, "bseat": c.R_BSEAT0, "gpp_sid": c.R_GPPSID0,
    }  # fmt: skip
    out: dict[str, Any] = {name: int(req[column]) for name, column in names.items()}
    out |= {name: batch.string(req, column) for name, column in spans.items()}
    out |= {name: values(req, column) for name, column in lists.items()}
    out["wlang"], out["cat"] = sorted(values(req, c.R_WLANG0)), sorted(values(req, c.R_CAT0))
    out["id"] = identity(req, c.R_ID_OFF)
    out["schain"] = int(req[c.R_SCHAIN_COMPLETE]), values(req, c.R_SCHAIN0, c.NODE_WIDTH)
    out["eids"] = [
        (source, batch.text[off : off + length].tobytes())
        for source, off, length in values(req, c.R_EIDS0, c.EID_WIDTH)
    ]
    first = int(req[c.R_IMP0])
    out["imps"] = [decoded_imp(batch, batch.imp[k], values, identity) for k in range(first, first + int(req[c.R_IMPN]))]
    return out


def decoded_imp(batch: Batch, imp: Any, values: Any, identity: Any) -> dict[str, Any]:
    """One imp in the shape of `expected_imp`."""
    names = {
        "floor": c.I_FLOOR, "floorcur": c.I_FLOORCUR, "secure": c.I_SECURE, "instl": c.I_INSTL, "rwdd": c.I_RWDD,
        "tagid": c.I_TAGID, "exp": c.I_EXP, "private_auction": c.I_PRIVATE_AUCTION, "flex": c.I_B_FLEX,
        "b_battr": c.I_B_BATTR, "b_btype": c.I_B_BTYPE, "b_api": c.I_B_API, "b_pos": c.I_B_POS, "v_w": c.I_V_W,
        "v_h": c.I_V_H, "v_mindur": c.I_V_MINDUR, "v_maxdur": c.I_V_MAXDUR, "v_plcmt": c.I_V_PLCMT,
        "v_startdelay": c.I_V_STARTDELAY, "v_linearity": c.I_V_LINEARITY, "v_poddur": c.I_V_PODDUR,
        "v_maxseq": c.I_V_MAXSEQ, "v_maxextended": c.I_V_MAXEXTENDED, "v_protocols": c.I_V_PROTOCOLS,
        "v_api": c.I_V_API, "v_battr": c.I_V_BATTR, "v_skip": c.I_V_SKIP, "v_mincpmpersec": c.I_V_MINCPMPERSEC,
        "n_bad": c.I_N_BAD, "n_ver": c.I_N_VER, "n_wrapped": c.I_N_WRAPPED, "n_battr": c.I_N_BATTR,
        "n_api": c.I_N_API, "media": c.I_MEDIA,
    }  # fmt: skip
    out: dict[str, Any] = {name: int(imp[column]) for name, column in names.items()}
    out["id"] = identity(imp, c.I_ID_OFF)
    out["sizes"], out["b_mimes"] = values(imp, c.I_B_SIZES0), values(imp, c.I_B_MIMES0)
    out["v_mimes"], out["v_rqddurs"] = values(imp, c.I_V_MIMES0), values(imp, c.I_V_RQDDURS0)
    out["v_durfloors"] = values(imp, c.I_V_DURFLOORS0, c.DURFLOOR_WIDTH)
    out["n_assets"] = values(imp, c.I_N_ASSETS0, c.ASSET_WIDTH)
    first = int(imp[c.I_DEAL0])
    out["deals"] = [
        {
            "id": identity(deal, c.D_ID_OFF),
            "hash": int(deal[c.D_ID]),
            "floor": int(deal[c.D_FLOOR]),
            "floorcur": int(deal[c.D_FLOORCUR]),
            "at": int(deal[c.D_AT]),
            "wseat": values(deal, c.D_WSEAT0),
            "wadomain": values(deal, c.D_WADOMAIN0),
            "durfloors": values(deal, c.D_DURFLOORS0, c.DURFLOOR_WIDTH),
        }
        for deal in batch.deal[first : first + int(imp[c.I_DEALN])]
    ]
    return out
