"""`dsp report`, `dsp ledger explain` and `dsp ledger reconcile` on books that a ledger has made."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import dsp.catalog
from dsp.base.config import Config
from dsp.base.token import TOKEN, Signer
from dsp.bidder.rta_tally import T_ACCEPTED, T_CPC, T_PCVR, T_WANTED, T_WIDTH, Tallies
from dsp.catalog.current import current_path
from dsp.catalog.publish import catalog_path, publish
from dsp.catalog.snapshot import Snapshot
from dsp.catalog.store import apply_file, open_catalog
from dsp.cli.main import app
from dsp.ledger.books import Books
from dsp.ledger.plan import plan_of
from dsp.ledger.ticket import Notice, open_ticket
from dsp.log.outcomes import APPLIED, BILLING, CLICK, FUNDED

EXAMPLE = Path(dsp.catalog.__file__).parent / "example" / "catalog.yaml"
NOW_MS = 1_790_000_000_000  # 2026-09-21
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
PRICES = (4_000_000, 6_500_000, 12_000_000)  # CPM micros


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example catalog, and three impressions of line item 1 with what came of them."""
    root = tmp_path_factory.mktemp("data")
    config = Config(data_dir=str(root))
    engine = open_catalog(catalog_path(config))
    apply_file(engine, EXAMPLE)
    engine.dispose()
    books = Books.open(root / "ledger.db", config.ledger, time_ms=NOW_MS)
    with books.batch():
        books.adopt(plan_of(Snapshot.load(publish(config))), NOW_MS)
    signer = Signer({1: b"k" * 32})
    for i, price in enumerate(PRICES):
        record = np.zeros(1, TOKEN)
        values = {"kid": 1, "currency": b"USD", "fx": 1.0, "line_item": 1, "exchange": 1, "creative": 1}
        values |= {"reserve_micros": 10_000, "bid_cpm_micros": 10_000_000, "bid_id": 100 + i, "time_s": NOW_MS // 1000}
        for name, value in values.items():
            record[name] = value
        ticket = open_ticket(signer, signer.seal(record.tobytes()))
        notices = [Notice(BILLING, ticket, NOW_MS + 1000, price), Notice(CLICK, ticket, NOW_MS + 2000)]
        if i == 0:
            notices += [Notice(APPLIED, ticket, NOW_MS + 3000), Notice(FUNDED, ticket, NOW_MS + 4000, 0, 9_000_000_000)]
        with books.batch():
            books.apply(notices)
    books.close()
    return root


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("DSP_DATA_DIR", str(data_dir))
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


DAYS = ("--from", NOW.date(), "--to", NOW.date())


def test_report_says_what_was_bought_and_what_it_brought(run: Callable[..., Any]) -> None:
    found = json.loads(run("report", "--by", "line_item", *DAYS, "--json").stdout)
    (row,) = found["rows"]
    spend = (4_000 + 6_500 + 10_000) / 1e6  # the third is disputed beyond its reservation
    assert row["line_item_id"] == 1
    assert row["line_item"]
    assert row["spend"] == pytest.approx(spend)
    assert (row["impressions"], row["clicks"], row["applied"], row["funded"]) == (3, 3, 1, 1)
    assert row["cost_per_funded"] == pytest.approx(spend, abs=1e-4)
    assert row["risk_adjusted_value"] > 0


def test_report_as_csv_and_as_table(run: Callable[..., Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(run("report", "--by", "day,exchange", *DAYS, "--csv").stdout)))
    assert [row["day"] for row in rows] == [NOW.date().isoformat()]
    assert rows[0]["spend"] == "0.0205"
    table = run("report", "--by", "segment", *DAYS)
    assert table.exit_code == 0
    assert "segment" in table.stdout
    empty = run("report", "--from", "2020-01-01", "--to", "2020-01-02")
    assert "nothing was bought" in empty.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "browser"), "cannot group by 'browser'"),
        (("--from", "yesterday"), "yesterday"),
        (("--advertiser", "Nobody"), "no advertiser is called 'Nobody'"),
    ],
)
def test_wrong_questions_end_with_one_clear_line(run: Callable[..., Any], arguments: Any, message: str) -> None:
    result = run("report", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_explain_prints_the_trail_and_that_it_adds_up(run: Callable[..., Any]) -> None:
    text = run("ledger", "explain", 1)
    assert text.exit_code == 0
    lines = text.stdout.splitlines()
    assert len([line for line in lines if "impression; bid" in line]) == 3
    assert "disputed, not spent" in text.stdout
    assert lines[-1] == "line item 1: 4 entries, 0.020500 spent, as its balance says"
    found = json.loads(run("ledger", "explain", 1, "--json").stdout)
    assert [step["spend_micros"] for step in found["steps"]] == [4_000, 10_500, 20_500, 20_500]
    assert found["balance_micros"] == found["entries_micros"] == 20_500
    unknown = run("ledger", "explain", 999_999)
    assert unknown.exit_code == 2
    assert "no entry of a line item 999999" in unknown.stderr


def bill(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "bill.csv"
    file.write_text(text)
    return file


def test_a_bill_by_impression_that_agrees_has_no_differences(run: Callable[..., Any], tmp_path: Path) -> None:
    file = bill(tmp_path, "Bid_ID,amount\n64,0.004\n65,0.0065\n66,0.012\n")
    result = run("ledger", "reconcile", 1, file)
    assert result.exit_code == 0, result.output
    assert "billed 3 impressions for 0.022500, booked 3 for 0.022500: 0 differences" in result.stdout


def test_differences_of_a_bill_are_listed(run: Callable[..., Any], tmp_path: Path) -> None:
    file = bill(tmp_path, "auction,price\n64,4.0\n64,4.0\n66,11.0\nabc,2.5\n")
    result = run("ledger", "reconcile", 1, file, "--column", "bid_id=auction", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["differences"]
    assert {(d["what"], d["key"]) for d in found} == {
        ("billed twice", "64"),
        ("amount", "66"),
        ("not booked", "abc"),
        ("not billed", "65"),
    }
    (amount,) = (d for d in found if d["what"] == "amount")
    assert (amount["billed_micros"], amount["booked_micros"]) == (11_000, 12_000)


def test_a_bill_by_day_and_creative_is_compared_by_sums(run: Callable[..., Any], tmp_path: Path) -> None:
    day = NOW.date().isoformat()
    good = bill(tmp_path, f"date,creative,impressions,cost\n{day},1,3,0.0225\n")
    assert run("ledger", "reconcile", 1, good).exit_code == 0
    off = bill(tmp_path, f"date,creative,impressions,cost\n{day},1,3,0.0227\n{day},2,5,0.01\n")
    result = run("ledger", "reconcile", 1, off, "--tolerance", 0.02)
    assert result.exit_code == 1
    assert "not booked: " + day + " 2: billed 5 for 0.010000" in result.stdout
    assert "1 differences" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,amount\nx,1\n", "needs a column bid_id or date"),
        ("bid_id,quantity\n64,1\n", "needs a column amount or cpm"),
        ("bid_id,amount\nnonsense,1\n", "line 2: 'nonsense' is not a bid id"),
        ("bid_id,amount\n64,free\n", "line 2: amount 'free' is not an amount"),
        ("date,amount\nyesterday,1\n", "line 2: 'yesterday' is not a date"),
    ],
)
def test_a_bill_that_cannot_be_read_names_line_and_column(
    run: Callable[..., Any], tmp_path: Path, text: str, message: str
) -> None:
    result = run("ledger", "reconcile", 1, bill(tmp_path, text))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_platforms_cost_report_is_planned_by_its_strategies(data_dir: Path, tmp_path: Path) -> None:
    name = str(Snapshot.load(current_path(Config(data_dir=str(data_dir)))).meta["exchanges"][0]["name"])  # type: ignore[arg-type]
    settings = tmp_path / "settings.yaml"
    platform = {"exchange": name, "currency": "USD", "strategies": [{"id": "loans", "line_item": 1}]}
    settings.write_text(json.dumps({"data_dir": str(data_dir), "rta": {"platforms": [platform]}}))
    file = bill(tmp_path, "date,strategy,cost\n2026-09-20,loans,1.5\n2026-09-20,loans,2\n2026-09-21,1,0.25\n")
    runner = CliRunner()
    result = runner.invoke(app, ["--config", str(settings), "ledger", "costs", name, str(file), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "would book 3.500000 on line item 1: 2026-09-20, 3.500000 USD reported" in result.stdout
    assert "would book 0.250000 on line item 1: 2026-09-21" in result.stdout
    result = runner.invoke(app, ["--config", str(settings), "ledger", "costs", "nobody", str(file)])
    assert result.exit_code != 0
    assert "rta.platforms has no exchange 'nobody'" in result.output


def test_strategies_are_reported_with_what_they_answered_cost_and_brought(data_dir: Path, tmp_path: Path) -> None:
    name = str(Snapshot.load(current_path(Config(data_dir=str(data_dir)))).meta["exchanges"][0]["name"])  # type: ignore[arg-type]
    settings = tmp_path / "settings.yaml"
    strategies = [{"id": "loans", "line_item": 1, "answer": "cpc"}]
    platform = {"exchange": name, "currency": "USD", "strategies": strategies, "utc_offset_min": 0}
    settings.write_text(json.dumps({"data_dir": str(data_dir), "rta": {"platforms": [platform]}}))
    day = (NOW.date() - date(1970, 1, 1)).days
    for worker in ("rta0", "rta1"):  # two workers' sums are added up
        tallies = Tallies(data_dir / "rta", worker)
        sums = np.zeros((2, T_WIDTH))
        sums[:, T_WANTED], sums[:, T_ACCEPTED], sums[:, T_CPC], sums[:, T_PCVR] = 10, 4, 200, 0.08
        tallies.add(day, name, [("loans", 1), ("unpaid", 2)], sums)
        tallies.keep(0)

    def rta(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["--config", str(settings), "rta", *map(str, arguments)])

    result = rta(*DAYS, "--json")
    assert result.exit_code == 0, result.output
    loans, unpaid = json.loads(result.stdout)["rows"]
    assert (loans["strategy"], loans["wanted"], loans["accepted"], loans["answer"]) == ("loans", 20, 8, "cpc")
    assert (loans["said"], loans["pcvr"]) == (50.0, 0.02)
    assert (loans["spend"], loans["applied"], loans["funded"]) == (pytest.approx(0.0205), 1, 1)
    assert (unpaid["strategy"], unpaid["wanted"], unpaid["spend"], unpaid["cost_per_funded"]) == ("unpaid", 20, 0, None)
    (daily, _) = list(csv.DictReader(io.StringIO(rta(name, *DAYS, "--daily", "--csv").stdout)))
    assert (daily["day"], daily["platform"]) == (NOW.date().isoformat(), name)
    assert "loans" in rta(*DAYS).stdout
    assert "nobody asked" in rta("--to", "2020-01-01").stdout
    assert "no exchange 'nobody'" in rta("nobody").stderr
