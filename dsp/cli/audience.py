"""`dsp audience`: load people, look at one, export, forget, count, rotate keys, size a cluster."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dsp.base.config import Config
from dsp.cli.edge import config_of, fail, print_json, refusing

app = typer.Typer(help="The audience store.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Identifier = Annotated[str, typer.Argument(help="The identifier as the exchange or the data team writes it.")]
Kind = Annotated[str, typer.Option(help="What it is, as a column to load: ifa, didmd5, buyeruid, eid, caid, ...")]
Scope = Annotated[str, typer.Option(help="Exchange number of a buyeruid or user_id; source of an eid.")]


@app.command()
def load(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with a header, or Parquet.")],
    fresh: Annotated[bool, typer.Option(help="Start over where an earlier load of this file was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Load, change or delete people. Rows that can't be used are listed in a reject file, by number and reason.

    A file changes what its columns speak of and leaves the rest of a known person as it is; delete = 1 takes a person
    out. An interrupted load goes on where it was.
    """
    config = config_of(context)
    from dsp.audience.access import AccessError, allow
    from dsp.audience.load import load_profiles
    from dsp.audience.store import StoreError
    from dsp.cli.progress import people_bar
    from dsp.openrtb.hashing import hash_text

    with refusing(StoreError, AccessError), people_bar(file, quiet=as_json or not sys.stderr.isatty()) as progress:
        allow(config, "load", people=0)
        report = load_profiles(config, file, progress, hash_text=hash_text, fresh=fresh)
    if as_json:
        rejects = str(report.rejects) if report.rejects else None
        print_json({**asdict(report), "rejects": rejects})
        return
    if report.resumed:
        print(f"resumed after {report.resumed:,} rows")
    print(f"{report.loaded:,} people loaded, {report.deleted:,} deleted, {report.rejected:,} rows rejected")
    if report.rejects:
        print(f"why: {report.rejects}")


@app.command()
def get(
    context: typer.Context, identifier: Identifier, kind: Kind = "ifa", scope: Scope = "", as_json: Json = False
) -> None:
    """Show what is known of one person."""
    found, reference = _person(context, identifier, kind, scope, "read")
    if as_json:
        print_json(found)
        return
    for name, value in (found or {}).items():
        print(f"{name:20} {value}")
    print(f"nobody is known by this {kind}" if found is None else f"access reference {reference}")


@app.command()
def export(
    context: typer.Context,
    identifier: Identifier,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    kind: Kind = "ifa",
    scope: Scope = "",
) -> None:
    """Write everything that is known of one person to a file, for them."""
    import json

    found, reference = _person(context, identifier, kind, scope, "export")
    if found is None:
        fail(f"nobody is known by this {kind}")
    with refusing():
        out.write_text(json.dumps(found, indent=1))
    print(f"written to {out}; access reference {reference}")


@app.command()
def forget(
    context: typer.Context, identifier: Identifier, kind: Kind = "ifa", scope: Scope = "", as_json: Json = False
) -> None:
    """Erase one person for good, then prove it: every file of the data directory is searched for what might be left."""
    config = config_of(context)
    from dsp.audience.access import AccessError, allow
    from dsp.audience.person import People, keys_of_identifier
    from dsp.audience.store import StoreError
    from dsp.openrtb.hashing import hash_text

    with refusing(StoreError, AccessError):
        reference = allow(config, "erase")
        keys = keys_of_identifier(config, identifier, kind, scope, hash_text)
        with People(config) as people:
            done = people.forget(keys, identifier, lambda subjects: _forget_events(config, subjects))
    if as_json:
        print_json({**asdict(done), "reference": reference})
    else:
        print(f"erased: {done.profiles} profile, {done.ids} ids, {done.states} frequency states, {done.events} events")
        print(f"searched: {done.files:,} files, {done.bytes / 1e6:,.1f} MB; traces: {len(done.traces)}")
        for path in done.traces:
            print(f"still in {path}")
        print(f"access reference {reference}")
    if done.traces:
        raise typer.Exit(1)


@app.command()
def lookalike(
    context: typer.Context,
    segment: Annotated[int, typer.Argument(help="Segment number.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    share: Annotated[float, typer.Option(help="Of the people who are not in it.")] = 0.01,
) -> None:
    """Export a segment as training data: its members and a sample of the others, features only, no identifiers."""
    config = config_of(context)
    from dsp.audience.access import AccessError, allow
    from dsp.audience.lookalike import export_segment
    from dsp.audience.person import people_blocks
    from dsp.audience.store import StoreError
    from dsp.cli.progress import people_bar

    with refusing(StoreError, AccessError), people_bar(out, quiet=not sys.stderr.isatty()) as progress:
        allow(config, "export", people=0)
        members, others = export_segment(
            people_blocks(config), segment, out, share=share, progress=lambda people: progress(people, 0)
        )
    print(f"{members:,} members, {others:,} others written to {out}")


@app.command()
def stats(context: typer.Context, as_json: Json = False) -> None:
    """Count profiles, ids and frequency states, and what they take."""
    config = config_of(context)
    from dsp.audience.stats import count
    from dsp.audience.store import StoreError

    with refusing(StoreError):
        counts = asdict(count(config))
    if as_json:
        print_json(counts)
        return
    print(f"{counts['people']:,} people, {counts['ids']:,} ids, {counts['states']:,} frequency states")
    if counts["people"]:
        print(
            f"{counts['profile_bytes'] / 1e6:,.1f} MB, {counts['profile_bytes'] / counts['people']:.0f} bytes a person"
        )


@app.command()
def rotate(context: typer.Context) -> None:
    """Encrypt every profile anew with the highest key of DSP_PROFILE_KEYS, then wipe the old ones."""
    config = config_of(context)
    from dsp.audience.access import AccessError, allow
    from dsp.audience.cipher import CipherError
    from dsp.audience.rotate import rotate_records
    from dsp.audience.store import StoreError
    from dsp.cli.progress import people_bar

    with refusing(StoreError, AccessError, CipherError):
        allow(config, "load", people=0)
        with people_bar(config.root, quiet=not sys.stderr.isatty()) as progress:
            people = rotate_records(config, lambda done: progress(done, 0))
    print(f"{people:,} profiles encrypted with the current key")


@app.command()
def size(
    people: Annotated[float, typer.Option(help="Profiles, say 1e9.")],
    qps: Annotated[float, typer.Option(help="Bid requests a second.")],
    ids: Annotated[float, typer.Option(help="Identifiers a person.")] = 3.0,
    copies: Annotated[int, typer.Option(help="Replication factor.")] = 2,
    memory_gb: Annotated[float, typer.Option(help="Of a node.")] = 64.0,
    disk_gb: Annotated[float, typer.Option(help="Of a node.")] = 1000.0,
    cores: Annotated[int, typer.Option(help="Of a node.")] = 16,
    usd_month: Annotated[float, typer.Option(help="Price of a node.")] = 600.0,
    in_memory: Annotated[bool, typer.Option(help="Keep data in memory, not only the index.")] = False,
    as_json: Json = False,
) -> None:
    """How many Aerospike nodes an audience needs, and what they cost."""
    from dsp.audience.sizing import Node
    from dsp.audience.sizing import size as size_of

    if people < 1 or qps < 0 or ids <= 0 or copies < 1:
        fail("people, ids and copies are positive numbers, qps is not negative")
    need = size_of(
        int(people), qps, Node(memory_gb, disk_gb, cores, usd_month), ids=ids, copies=copies, data_in_memory=in_memory
    )
    if as_json:
        print_json(asdict(need))
        return
    print(f"{need.people:,} people, {need.records:,} records with copies")
    print(f"index {need.index_gb:,.0f} GB in memory, data {need.data_gb:,.0f} GB, {need.reads_per_s:,.0f} key reads/s")
    print(f"nodes for memory {need.nodes_for_memory}, disk {need.nodes_for_disk}, reads {need.nodes_for_reads}")
    print(f"=> {need.nodes} nodes with one to spare, {need.usd_month:,.0f} USD a month")
    print(f"(LMDB instead: {need.lmdb_gb:,.0f} GB on every bidder host)")


def _person(context: typer.Context, identifier: str, kind: str, scope: str, action: Any) -> tuple[Any, str]:
    config = config_of(context)
    from dsp.audience.access import AccessError, allow
    from dsp.audience.person import People, keys_of_identifier
    from dsp.audience.store import StoreError
    from dsp.openrtb.hashing import hash_text

    with refusing(StoreError, AccessError):
        reference = allow(config, action)
        with People(config) as people:
            return people.find(keys_of_identifier(config, identifier, kind, scope, hash_text)), reference


def _forget_events(config: Config, subjects: set[bytes]) -> int:
    """Take people out of the books and of the decision log."""
    import numpy as np

    from dsp.bidder.arms import units_of
    from dsp.ledger.forget import forget_people
    from dsp.log.forget import forget_units

    people = np.frombuffer(b"".join(sorted(subjects)), np.uint8).reshape(len(subjects), -1)
    logged = forget_units(config.path("log", "decisions"), lambda experiment: units_of(people, experiment)[0])
    return forget_people(config, subjects) + logged
