from dsp.log.outcomes import BILLING, LOSS, OUTCOMES, OutcomeWriter, read_outcomes


def test_what_is_written_is_read(tmp_path):
    writer = OutcomeWriter(tmp_path, "ledger", threaded=False)
    rows = [((1 << 64) - 1, LOSS, 5, 11_500_000, 102.0), (7, BILLING, 6, 7_500_000, 0.0)]
    writer.append(rows)
    writer.append([])
    writer.close()
    found = read_outcomes(tmp_path)
    assert found["bid_id"].tolist() == [(1 << 64) - 1, 7]
    assert [OUTCOMES[kind] for kind in found["kind"]] == ["loss", "billing"]
    assert found["price_micros"].tolist() == [11_500_000, 7_500_000]
    assert found["value"].tolist() == [102.0, 0.0]


def test_many_rows_at_once_are_all_taken(tmp_path):
    writer = OutcomeWriter(tmp_path, "market", threaded=False)
    writer.append([(i, 0, 1000, 0, 0.0) for i in range(10_000)])
    assert writer.dropped == 0
    writer.close()
    assert read_outcomes(tmp_path)["bid_id"].tolist() == list(range(10_000))


def test_since_and_several_writers(tmp_path):
    for name in ("a", "b"):
        writer = OutcomeWriter(tmp_path, name, threaded=False)
        writer.append([(1, 0, 1000, 0, 0.0), (2, 0, 2000, 0, 0.0)])
        writer.close()
    assert len(read_outcomes(tmp_path)["bid_id"]) == 4
    assert read_outcomes(tmp_path, since=1500)["bid_id"].tolist() == [2, 2]


def test_no_directory_reads_as_no_rows(tmp_path):
    assert len(read_outcomes(tmp_path / "nowhere")["bid_id"]) == 0
