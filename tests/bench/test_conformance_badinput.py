"""Bad input over every wire: refused clearly, its neighbours answered, memory flat."""

import json

import pytest

from bench.badinput import BadCase, faults, good_request, json_cases, protobuf_cases, run_badinput
from bench.clients import NO_ANSWER, Reply
from bench.everything import WIRES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wire", WIRES)
def test_bad_input_is_refused_and_hurts_nobody(everything, wire):
    wrong, row = run_badinput(everything, wire, 1.0)
    assert wrong == []
    assert row["cases"] > 60


def test_the_cases_are_what_they_say():
    good = good_request()
    names = {case.name for case in json_cases(good)} | {case.name for case in protobuf_cases(good)}
    for kind in (
        "truncated",
        "garbage",
        "5 MB",
        "nested",
        "1,000 imps",
        "of one id",
        "NaN",
        "negative",
        "UTF-8",
        "zip",
    ):
        assert any(kind in name for name in names), kind
    for case in json_cases(good):
        if case.name.startswith("truncated"):
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(case.body)


def test_an_answer_is_judged_by_status_and_message():
    case = BadCase("x", b"")
    assert faults(case, Reply(400, b"", {"x-dsp-error": "not valid JSON"})) == []
    assert faults(case, Reply(400, b"not valid JSON")) == []
    assert "without a message" in faults(case, Reply(400, b""))[0]
    assert "500 instead of" in faults(case, Reply(500, b"oops"))[0]
    assert "no answer" in faults(case, Reply(NO_ANSWER, b"timed out"))[0]
