"""Every real request decodes to what a plain reading of it says, from JSON and from protobuf."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from openrtb_reference import RefusedError, decoded, expected, load

from dsp.openrtb import columns as c
from dsp.openrtb.columns import Batch
from dsp.openrtb.convert import json_to_pb, pb_to_json
from dsp.openrtb.decode import decode_batch, error_text

CORPUS = Path(__file__).parents[3] / "shared" / "openrtb" / "requests.jsonl.gz"


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is missing: the real requests are needed to read them")
    with gzip.open(CORPUS) as file:
        return [json.loads(line) for line in file]


def test_json_decodes_to_what_json_says(corpus: list[dict[str, Any]]) -> None:
    batch = Batch()
    for start in range(0, len(corpus), 48):
        rows = corpus[start : start + 48]
        decode_batch(batch, [row["body"].encode() for row in rows], [c.FMT_JSON] * len(rows))
        for i, row in enumerate(rows):
            try:
                wanted = expected(load(row["body"].encode()))
            except RefusedError:
                assert batch.req[i, c.R_STATUS] != c.OK, row["name"]
                assert row["class"] == "invalid"
                continue
            assert error_text(batch, i) == "", row["name"]
            assert decoded(batch, i) == wanted, row["name"]


def test_every_ok_and_soft_request_is_taken(corpus: list[dict[str, Any]]) -> None:
    batch = Batch()
    for row in corpus:
        if row["class"] != "invalid":
            decode_batch(batch, [row["body"].encode()], [c.FMT_JSON])
            assert error_text(batch, 0) == "", row["name"]


def test_protobuf_decodes_to_what_the_official_library_says(corpus: list[dict[str, Any]]) -> None:
    batch = Batch()
    for start in range(0, len(corpus), 48):
        rows = corpus[start : start + 48]
        messages = [json_to_pb(json.loads(row["body"])) for row in rows]
        decode_batch(batch, [m.SerializeToString() for m in messages], [c.FMT_PROTOBUF] * len(rows))
        for i, (row, message) in enumerate(zip(rows, messages, strict=True)):
            try:
                wanted = expected(pb_to_json(message))
            except RefusedError:
                assert batch.req[i, c.R_STATUS] != c.OK, row["name"]
                continue
            assert error_text(batch, i) == "", row["name"]
            assert decoded(batch, i) == wanted, row["name"]
