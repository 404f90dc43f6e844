"""`dsp ledger`: the role itself, and what people ask of its books."""

from __future__ import annotations

import http.client
import time
from typing import Annotated, Any

import msgspec
import typer

from dsp.base.config import Config
from dsp.base.logs import start_logging
from dsp.base.money import parse_micros
from dsp.base.token import load_signer
from dsp.cli.edge import config_of, end_with_parent, fail, print_json, refusing
from dsp.control.grants import sign_sync, sync_key

app = typer.Typer(help="Run the ledger; or, with a command, ask or tell a running one.", invoke_without_command=True)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.callback()
def ledger(context: typer.Context) -> None:
    """Run the ledger: budgets, notices, books."""
    if context.invoked_subcommand is not None:
        return
    config = config_of(context)
    end_with_parent()
    from dsp.ledger.server import run_ledger

    start_logging(config.logs, "ledger")
    with refusing():
        run_ledger(config)


@app.command()
def stop(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="everything, line_item, campaign or advertiser")] = "everything",
    number: Annotated[int, typer.Argument(help="Its id.")] = 0,
    why: Annotated[str, typer.Option(help="Kept with the stop.")] = "",
) -> None:
    """The kill switch: no bid follows within a second, until `dsp ledger resume`. Money already bid is still booked."""
    order(config_of(context), {"type": "stop", "what": what, "id": number, "detail": why})
    print(f"stopped {what} {number or ''}".rstrip())


@app.command()
def resume(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="everything, line_item, campaign or advertiser")] = "everything",
    number: Annotated[int, typer.Argument(help="Its id.")] = 0,
) -> None:
    """End a stop, a person's or a brake's."""
    done = order(config_of(context), {"type": "resume", "what": what, "id": number})["resumed"]
    print(f"{'resumed' if done else 'was not stopped:'} {what} {number or ''}".rstrip())


@app.command()
def stops(context: typer.Context, as_json: AsJson = False) -> None:
    """List what brakes and people have stopped, and why."""
    found = order(config_of(context), {"type": "stops"})["stops"]
    if as_json:
        print_json(found)
        return
    for item in found:
        print(f"{item['what']} {item['id']}: {item['reason']} {item['detail']}")
    if not found:
        print("nothing is stopped")


@app.command()
def adjust(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(help="deposit, refund, credit_note, make_good, clawback, dispute_won or _lost")
    ],
    amount: Annotated[str, typer.Argument(help="In whole units of the currency: 125.50")],
    key: Annotated[str, typer.Option(help="The document's number. The same key twice is booked once.")],
    advertiser: Annotated[int, typer.Option(help="Id, for deposit, refund and credit_note.")] = 0,
    line_item: Annotated[int, typer.Option(help="Id, for make_good and clawback.")] = 0,
    exchange: Annotated[int, typer.Option(help="Id, for clawback and disputes.")] = 0,
    currency: Annotated[str, typer.Option(help="Where no line item says it.")] = "",
    note: Annotated[str, typer.Option(help="Kept with the entry.")] = "",
) -> None:
    """Book a payment, a credit note, a make-good, a clawback or the end of a dispute."""
    with refusing(ValueError):
        micros = parse_micros(amount)
    made = {
        **{"key": key, "kind": kind, "micros": micros, "advertiser": advertiser, "line_item": line_item},
        **{"exchange": exchange, "currency": currency.upper(), "note": note},
    }
    fields = ("key", "kind", "micros", "advertiser", "line_item", "exchange", "period", "currency", "note")
    values = [made.get(name, 0) for name in fields]
    posted = order(config_of(context), {"type": "adjust", "adjustment": values})["posted"]
    print("booked" if posted else f"nothing done: {key} was booked before")


@app.command()
def migrate(
    context: typer.Context,
    to: Annotated[str, typer.Option(help="An earlier shape of the tables, 0005 say, for an older release.")] = "",
) -> None:
    """Bring the books' tables to today's shape, or back to an earlier one. A ledger at work on them is fenced first.

    Starting a ledger does the first of it, too: begin the older release with nothing of this one running.
    """
    from dsp.ledger.books import Books
    from dsp.ledger.database import connect, go_back, revision_of, revisions

    config = config_of(context)
    where = config.ledger.database or config.path("ledger.db")
    with refusing(ValueError):
        if to and to not in revisions():
            raise ValueError(f"{to!r} is none of {', '.join(revisions())}")
        Books.open(where, config.ledger).close()  # today's shape, fenced, reports whole
        engine = connect(where)
        if to:
            go_back(engine, to)
        print(f"the books' tables are those of {revision_of(engine)}")
        engine.dispose()


def order(config: Config, body: dict[str, Any]) -> dict[str, Any]:
    """Send an order to the running ledger. What it refuses ends the command."""
    data = msgspec.json.encode({**body, "at_s": time.time()})
    key = sync_key(load_signer(config.path("secrets", "signing.json")).sync_secret)
    connection = http.client.HTTPConnection(config.ledger.host, config.ledger.port, timeout=10)
    try:
        connection.request("POST", "/control", data, {"x-dsp-signature": sign_sync(key, data)})
        response = connection.getresponse()
        answer = response.read()
    except OSError as error:
        fail(f"no ledger answers at {config.ledger.host}:{config.ledger.port}: {error}")
    finally:
        connection.close()
    if response.status != 200:
        fail(answer.decode("utf-8", "replace").strip())
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found
