"""The consent decision table: each row, each signal each way, and what the kernel makes of anything a request holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from consent_strings import gpp, tcf, tcf_reference, usnat
from hypothesis import given
from hypothesis import strategies as st
from request_rows import Requests

from dsp.audience.consent import (
    CONSENT_COLUMNS,
    DEFAULT_TABLE,
    FREQUENCY,
    JOIN,
    RECORD,
    RISK,
    SIGNALS,
    SPECIAL,
    ConsentError,
    ConsentGate,
    compile_rows,
    mask_profiles,
)
from dsp.audience.profile import CONSENT_FINANCIAL, CONSENT_PROFILING, PROFILE, PROFILE_BYTES
from dsp.openrtb.columns import REQUEST_COLUMNS
from dsp.openrtb.hashing import hash_text

VENDOR = 1500
ALL = JOIN | FREQUENCY | RISK
FULL = tcf(range(1, 11), {VENDOR})
OTHERS = tcf(range(1, 11), {VENDOR - 1})
GATE = ConsentGate(VENDOR, REQUEST_COLUMNS, hash_text)
GATE.attach(["one", "two"])


def decide(gate: ConsentGate = GATE, **values: Any) -> int:
    requests = Requests()
    requests.add(**values)
    out = np.full(requests.n, -1, np.int64)
    gate.run(requests.batch.req, requests.batch.text, requests.batch.pool, requests.n, out)
    return int(out[0])


def allowed(gate: ConsentGate = GATE, **values: Any) -> int:
    return decide(gate, **values) & ALL


# One case per row of the table and value of each signal: what is allowed (and RECORD) for what the request says.
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("us: silence is not an opt-out", ALL, {"COUNTRY": "USA"}),
    ("us: privacy string without opt-out", ALL, {"COUNTRY": "USA", "USP": "1YNN"}),
    ("us: privacy string not applicable", ALL, {"COUNTRY": "USA", "USP": "1---"}),
    ("us: opted out of sale", 0, {"COUNTRY": "USA", "USP": "1YYN"}),
    ("us: malformed privacy string", 0, {"COUNTRY": "USA", "USP": "1Y"}),
    ("us: privacy string counts elsewhere too", 0, {"COUNTRY": "BRA", "USP": "1YYN"}),
    ("us: national section without opt-out", ALL, {"COUNTRY": "USA", "GPP": gpp({7: usnat()}), "GPPSID": [7]}),
    ("us: national section opted out", 0, {"COUNTRY": "USA", "GPP": gpp({7: usnat(sale=1)}), "GPPSID": [7]}),
    ("us: global privacy control", 0, {"COUNTRY": "USA", "GPP": gpp({7: usnat(gpc=1)}), "GPPSID": [7]}),
    ("us: national section announced and missing", 0, {"COUNTRY": "USA", "GPPSID": [7]}),
    ("us: national section missing in the string", 0, {"COUNTRY": "USA", "GPP": gpp({6: "1YNN"}), "GPPSID": [7]}),
    ("us: state section, which we can't read", 0, {"COUNTRY": "USA", "GPP": gpp({8: "BAAA"}), "GPPSID": [8]}),
    ("us: one kept, one unread", 0, {"COUNTRY": "USA", "GPP": gpp({7: usnat(), 9: "B"}), "GPPSID": [7, 9]}),
    ("us: us_privacy as a section, kept", ALL, {"COUNTRY": "USA", "GPP": gpp({6: "1YNN"}), "GPPSID": [6]}),
    ("us: us_privacy as a section, opted out", 0, {"COUNTRY": "USA", "GPP": gpp({6: "1YYN"}), "GPPSID": [6]}),
    ("us: no section applies", ALL, {"COUNTRY": "USA", "GPP": gpp({7: usnat(sale=1)}), "GPPSID": [-1]}),
    ("us: sections that aren't in force", ALL, {"COUNTRY": "USA", "GPP": gpp({7: usnat(sale=1)})}),
    ("canada's section, which we can't read", 0, {"COUNTRY": "CAN", "GPP": gpp({5: "CAAA"}), "GPPSID": [5]}),
    ("eea: unset means it applies", 0, {"COUNTRY": "DEU"}),
    ("eea: unset, with consent", ALL, {"COUNTRY": "DEU", "CONSENT": FULL}),
    ("eea: stated not to apply", ALL, {"COUNTRY": "DEU", "GDPR": 0}),
    ("eea: applies, no string", 0, {"COUNTRY": "DEU", "GDPR": 1}),
    ("eea: applies, consent", ALL, {"COUNTRY": "DEU", "GDPR": 1, "CONSENT": FULL}),
    ("eea: applies, consent to others", 0, {"COUNTRY": "DEU", "GDPR": 1, "CONSENT": OTHERS}),
    ("eea: applies, malformed string", 0, {"COUNTRY": "DEU", "GDPR": 1, "CONSENT": FULL[:40]}),
    ("eea: applies, not a TCF string", 0, {"COUNTRY": "DEU", "GDPR": 1, "CONSENT": "yes"}),
    ("eea: applies, flag out of range", 0, {"COUNTRY": "DEU", "GDPR": 7}),
    ("eea: string in the GPP section", ALL, {"COUNTRY": "FRA", "GPP": gpp({2: FULL}), "GPPSID": [2]}),
    ("eea: GPP section without consent", 0, {"COUNTRY": "FRA", "GPP": gpp({2: OTHERS}), "GPPSID": [2]}),
    ("eea: user.consent outranks the section", 0,
     {"COUNTRY": "FRA", "CONSENT": OTHERS, "GPP": gpp({2: FULL}), "GPPSID": [2]}),
    ("eea: announced GPP section overrides gdpr=0", 0, {"COUNTRY": "FRA", "GDPR": 0, "GPPSID": [2]}),
    ("eea: purposes for joining, not for frequency", JOIN | RISK,
     {"COUNTRY": "DEU", "CONSENT": tcf({1, 3, 4}, {VENDOR})}),
    ("eea: purposes for frequency, not for joining", FREQUENCY, {"COUNTRY": "DEU", "CONSENT": tcf({1, 2}, {VENDOR})}),
    ("eea: no storage consent", 0, {"COUNTRY": "DEU", "CONSENT": tcf({2, 3, 4}, {VENDOR})}),
    ("uk", 0, {"COUNTRY": "GBR"}),
    ("switzerland", 0, {"COUNTRY": "CHE"}),
    ("alpha-2 and case", 0, {"COUNTRY": "de"}),
    ("norway is not a YAML no", 0, {"COUNTRY": "NO"}),
    ("gdpr stated elsewhere, no string", 0, {"COUNTRY": "USA", "GDPR": 1}),
    ("gdpr stated elsewhere, consent", ALL, {"COUNTRY": "USA", "GDPR": 1, "CONSENT": FULL}),
    ("cn: agreed", ALL | RECORD, {"COUNTRY": "CHN", "PIPL": 1}),
    ("cn: refused", 0, {"COUNTRY": "CHN", "PIPL": 0}),
    ("cn: unset", 0, {"COUNTRY": "CHN"}),
    ("a PIPL no counts elsewhere too", 0, {"COUNTRY": "USA", "PIPL": 0}),
    ("other country", ALL, {"COUNTRY": "BRA"}),
    ("a country we never heard of", ALL, {"COUNTRY": "XYZ"}),
    ("no country", 0, {}),
    ("no country, gdpr said not to apply", 0, {"GDPR": 0}),
    ("no country, gdpr and consent", ALL, {"GDPR": 1, "CONSENT": FULL}),
    ("no country, gdpr without consent", 0, {"GDPR": 1}),
    ("a child", 0, {"COUNTRY": "USA", "COPPA": 1}),
    ("a child with consent", 0, {"COUNTRY": "DEU", "COPPA": 1, "CONSENT": FULL}),
    ("not a child", ALL, {"COUNTRY": "USA", "COPPA": 0}),
    ("coppa out of range", 0, {"COUNTRY": "USA", "COPPA": 5}),
    ("limited ad tracking", 0, {"COUNTRY": "USA", "LMT": 1}),
    ("unlimited ad tracking", ALL, {"COUNTRY": "USA", "LMT": 0}),
    ("limited ad tracking with consent", 0, {"COUNTRY": "DEU", "LMT": 1, "CONSENT": FULL}),
    ("do not track", 0, {"COUNTRY": "USA", "DNT": 1}),
    ("do track", ALL, {"COUNTRY": "USA", "DNT": 0}),
    ("limited with PIPL consent", 0, {"COUNTRY": "CHN", "PIPL": 1, "LMT": 1}),
    ("a request that didn't decode", 0, {"COUNTRY": "USA", "STATUS": 1}),
    ("an exchange nobody knows", 0, {"COUNTRY": "USA", "EXCHANGE": 2}),
    ("no exchange", 0, {"COUNTRY": "USA", "EXCHANGE": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "values"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_decision(expected: int, values: dict[str, Any]) -> None:
    assert decide(**values) & ~SPECIAL == expected


def test_a_batch_decides_each_request_for_itself() -> None:
    requests = Requests()
    for _, _, values in CASES[:60]:
        requests.add(**values)
    out = np.zeros(requests.n, np.int64)
    GATE.run(requests.batch.req, requests.batch.text, requests.batch.pool, requests.n, out)
    assert (out & ~SPECIAL).tolist() == [case[1] for case in CASES[:60]]


@pytest.mark.parametrize("country", ["USA", "us", "CAN", "PRI", "ZAF", "AUS", ""])
def test_demographics_are_forbidden_for_credit(country: str) -> None:
    assert decide(COUNTRY=country) & SPECIAL


@pytest.mark.parametrize("country", ["DEU", "CHN", "BRA", "XYZ"])
def test_demographics_are_not_forbidden_everywhere(country: str) -> None:
    assert not decide(COUNTRY=country) & SPECIAL


def test_nothing_else_lifts_the_ban_on_demographics() -> None:
    assert decide(COUNTRY="USA", STATUS=1) & SPECIAL
    assert decide(COUNTRY="USA", LMT=1) == SPECIAL


def test_an_exchange_can_narrow_what_is_allowed(tmp_path: Path) -> None:
    table = tmp_path / "consent.yaml"
    table.write_text(DEFAULT_TABLE.read_text().replace("exchanges: {}", "exchanges: {two: [frequency]}"))
    gate = ConsentGate(VENDOR, REQUEST_COLUMNS, hash_text, table)
    assert allowed(gate, COUNTRY="USA") == 0  # nothing before exchanges are attached
    gate.attach(["one", "two"])
    assert allowed(gate, COUNTRY="USA", EXCHANGE=0) == ALL
    assert allowed(gate, COUNTRY="USA", EXCHANGE=1) == FREQUENCY
    assert allowed(gate, COUNTRY="USA", EXCHANGE=1, LMT=1) == 0


def test_another_vendor_id_needs_its_own_consent() -> None:
    gate = ConsentGate(VENDOR - 1, REQUEST_COLUMNS, hash_text)
    gate.attach(["one"])
    assert allowed(gate, COUNTRY="DEU", CONSENT=OTHERS) == ALL
    assert allowed(gate, COUNTRY="DEU", CONSENT=FULL) == 0


def rows() -> list[dict[str, Any]]:
    return list(yaml.safe_load(DEFAULT_TABLE.read_text())["rows"])


def test_every_row_says_why() -> None:
    assert all(len(row["why"]) > 20 for row in rows())


def test_every_row_decides_something() -> None:
    """Taking a signal's row away widens something; so does a place's row, unless it spells out that nothing goes."""
    places = [row for row in rows() if "region" in row["when"]]
    signals = [row for row in rows() if "region" not in row["when"]]
    for row in signals:
        fewer = places + [other for other in signals if other is not row]
        assert (compile_rows(fewer) != compile_rows(rows())).any(), row
    for row in places:
        if row["allow"]:
            fewer = [other for other in places if other is not row]
            assert (compile_rows(fewer) != compile_rows(places)).any(), row


def test_every_combination_is_covered_by_a_row_of_its_place() -> None:
    spelled = [{**row, "allow": ["join"], "needs": []} for row in rows() if "region" in row["when"]]
    assert (compile_rows(spelled) == JOIN).all()


def test_no_row_widens_what_another_forbids() -> None:
    whole = compile_rows(rows()) & ALL
    for i in range(len(rows())):
        fewer = compile_rows(rows()[:i] + rows()[i + 1 :]) & ALL
        place_gone = fewer == 0  # no row of its place left: denied
        assert ((whole & ~fewer == 0) | place_gone).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{region: us}", "{region: mars}", "unknown value 'mars'"),
        ("{region: us}", "{planet: mars}", "unknown signal 'planet'"),
        ("allow: []", "allow: [everything]", "unknown 'everything'"),
        ("needs: record", "needs: luck", "unknown 'luck'"),
        ("join: [1, 3, 4]", "join: [1, 25]", "purposes are 1 to 24"),
        ("  cn: CHN CN", "  moon: XXX", "unknown region 'moon'"),
        ("rows:", "row:", "rows"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = tmp_path / "consent.yaml"
    text = DEFAULT_TABLE.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(ConsentError, match=message) as caught:
        ConsentGate(VENDOR, REQUEST_COLUMNS, hash_text, table)
    assert str(table) in str(caught.value)


def test_columns_are_those_of_the_decoder() -> None:
    for name in CONSENT_COLUMNS:
        if name.endswith(("_OFF", "0")):
            length = name.replace("_OFF", "_LEN") if name.endswith("_OFF") else name[:-1] + "N"
            assert REQUEST_COLUMNS.index(length) == REQUEST_COLUMNS.index(name) + 1


flags = st.sampled_from([-1, 0, 1, 2, -7, 2**62])


@given(
    country=st.sampled_from(["", "USA", "DEU", "CHN", "BRA"]),
    consent=st.one_of(st.binary(max_size=80), st.just(FULL.encode()), st.binary(max_size=30).map(lambda b: b"C" + b)),
    usp=st.binary(max_size=6),
    gpp_text=st.one_of(st.binary(max_size=60), st.just(gpp({2: FULL, 6: "1YNN", 7: usnat()}).encode())),
    sids=st.lists(st.integers(-2, 30), max_size=4),
    signals=st.fixed_dictionaries(dict.fromkeys(("GDPR", "COPPA", "LMT", "DNT", "PIPL"), flags)),
)
def test_garbage_never_earns_consent(
    country: str, consent: bytes, usp: bytes, gpp_text: bytes, sids: list[int], signals: dict[str, int]
) -> None:
    values = {"COUNTRY": country, "CONSENT": consent, "USP": usp, "GPP": gpp_text, "GPPSID": sids, **signals}
    bits = decide(**values)
    assert bits & ~(ALL | SPECIAL | RECORD) == 0
    if max(signals["COPPA"], signals["LMT"], signals["DNT"]) > 0 or signals["PIPL"] == 0:
        assert bits & ALL == 0
    if bits & JOIN and (signals["GDPR"] > 0 or (country == "DEU" and signals["GDPR"] < 0)):
        strings = [consent] if consent else gpp_text.split(b"~")[1:]
        assert any({1, 3, 4} <= (tcf_reference(text, VENDOR) or set()) for text in strings)
    if country in ("", "CHN") and signals["GDPR"] <= 0 and signals["PIPL"] < 0 and 2 not in sids:
        assert bits & ALL == 0


def profile(consent: int) -> np.ndarray[Any, Any]:
    record = np.zeros(1, PROFILE)
    record["version"] = 1
    record["consent"] = consent
    record["age_band"], record["income_band"], record["owned"], record["lifecycle"] = 3, 4, 5, 2
    record["intent"], record["risk"], record["n_segments"], record["affinity"] = 100, 50, 2, 9
    return record


def masked(bits: int, consent: int = 0) -> tuple[int, np.ndarray[Any, Any]]:
    raw = profile(consent).view(np.uint8).reshape(1, PROFILE_BYTES).copy()
    found = np.ones(1, np.int64)
    mask_profiles(1, np.array([bits], np.int64), raw, found)
    return int(found[0]), raw.view(PROFILE)[0, 0]


def test_without_join_nobody_is_known() -> None:
    found, record = masked(FREQUENCY | RISK, 3)
    assert found == 0
    assert not any(record.tobytes())


def test_without_risk_the_risk_factors_are_unknown() -> None:
    found, record = masked(JOIN | FREQUENCY)
    assert found == 1
    assert (record["risk"] == 255).all()
    assert record["income_band"].item() == 4
    assert masked(ALL)[1]["risk"].tolist() == [50] * 6


def test_where_the_record_must_agree_it_decides() -> None:
    assert masked(ALL | RECORD, 0)[0] == 0
    assert masked(ALL | RECORD, CONSENT_FINANCIAL)[0] == 0
    found, record = masked(ALL | RECORD, CONSENT_PROFILING)
    assert found == 1
    assert (record["income_band"], record["owned"], record["n_segments"]) == (0, 0, 0)
    assert not record["lifecycle"].any()
    assert (record["intent"] == 255).all()
    assert (record["risk"] == 255).all()
    assert (record["age_band"], record["affinity"].tolist()) == (3, [9] * 8)
    found, record = masked(ALL | RECORD, CONSENT_PROFILING | CONSENT_FINANCIAL)
    assert found == 1
    assert record.tobytes() == profile(CONSENT_PROFILING | CONSENT_FINANCIAL)[0].tobytes()


def test_signal_values_are_the_kernels() -> None:
    """The kernel numbers cells by hand; it must agree with SIGNALS."""
    assert list(SIGNALS) == ["region", "gdpr", "us_privacy", "gpp", "pipl", "coppa", "lmt", "dnt"]
    assert [len(values) for values in SIGNALS.values()] == [5, 3, 3, 3, 3, 3, 3, 3]
