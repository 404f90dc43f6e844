"""Online backup of books and catalog, and the way back.

A backup is one directory: ``books.db`` or ``books.dump`` (PostgreSQL, `pg_dump`), ``catalog.db``, ``spool/`` and
``backup.json``. Nothing stops for it: SQLite's backup reads one moment of the write-ahead log, `pg_dump` one snapshot.
The spool is copied before the books: a notice that is booked in between is in both, and is booked once all the same,
for events have keys. Invariant: a directory without ``.part`` is whole, synced to disk, and its books add up.

What was acknowledged after a backup is not in it. Books that lose nothing between backups need a database that ships
its log (PostgreSQL with continuous archiving); `dsp ledger reconcile` finds what is missing against exchanges' bills.
Keys (``secrets/``) are not part of it, so that a stolen backup reads no person and forges no notice: keep them apart.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dsp.base.config import Config
from dsp.catalog.publish import catalog_path
from dsp.ledger.accounts import ROLLUPS

BOOKS, DUMP, CATALOG, SPOOL, FACTS = "books.db", "books.dump", "catalog.db", "spool", "backup.json"
PART = ".part"
_ADDED_UP = (  # what a campaign or advertiser has is its line items' once more
    "SELECT coalesce(sum(debit_micros), 0), coalesce(sum(credit_micros), 0) FROM balances "
    f"WHERE kind NOT IN ({', '.join(str(kind) for kind in sorted(ROLLUPS))})"
)


class BackupError(Exception):
    """A backup that cannot be made, or not be used; the message says why and what to do."""


class Facts(msgspec.Struct):
    """What ``backup.json`` says."""

    made_s: float
    key: str  # fingerprint of the signing key that the books' tokens were signed with
    sha256: dict[str, str]  # by file


def books_path(config: Config) -> Path:
    """The SQLite file of the books."""
    return config.path("ledger.db")


def make_backup(config: Config, into: Path, now_s: float | None = None) -> Path:
    """Copy books, spool and catalog while all run; the new directory. Raises `BackupError`, OSError."""
    now_s = time.time() if now_s is None else now_s
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    whole, part = into / name, into / (name + PART)
    if whole.exists():
        raise BackupError(f"{whole} exists already")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    _copy_spool(config.path("spool"), part / SPOOL)
    if config.ledger.database:
        _run("pg_dump", config.ledger.database, "--format=custom", f"--file={part / DUMP}")
    elif books_path(config).exists():
        copy_sqlite(books_path(config), part / BOOKS)
        check_books(part / BOOKS)
    if catalog_path(config).exists():
        copy_sqlite(catalog_path(config), part / CATALOG)
    files = sorted(path for path in part.rglob("*") if path.is_file())
    facts = Facts(now_s, key_fingerprint(config), {str(path.relative_to(part)): _sha256(path) for path in files})
    (part / FACTS).write_bytes(msgspec.json.encode(facts))
    for path in (*files, part / FACTS, part):
        _sync(path)
    part.rename(whole)
    _sync(into)
    return whole


def prune_backups(into: Path, keep: int) -> list[Path]:
    """Delete all but the newest ``keep`` backups; those deleted."""
    old = sorted(path.parent for path in into.glob(f"*/{FACTS}") if not path.parent.name.endswith(PART))[:-keep]
    for path in old:
        shutil.rmtree(path)
    return old


def restore_backup(config: Config, backup: Path, now_s: float | None = None) -> Path:
    """Put a backup's books, spool and catalog in place; what was there is moved into the directory returned.

    Neither ledger nor console may run. Checks everything before it changes anything. Raises `BackupError`, OSError.
    """
    now_s = time.time() if now_s is None else now_s
    facts = check_backup(config, backup)
    aside = config.path(time.strftime("before-restore-%Y%m%dT%H%M%SZ", time.gmtime(now_s)))
    aside.mkdir(parents=True, mode=0o700)
    if config.ledger.database:
        _run("pg_dump", config.ledger.database, "--format=custom", f"--file={aside / DUMP}")
        _run(
            "pg_restore", config.ledger.database, "--clean", "--if-exists", "--no-owner", "--single-transaction",
            str(backup / DUMP),
        )  # fmt: skip
    for name, path in ((BOOKS, books_path(config)), (CATALOG, catalog_path(config))):
        if name in facts.sha256:
            _swap(backup / name, path, aside)
    spool = config.path("spool")
    if spool.exists():
        spool.rename(aside / SPOOL)  # its notices are of the future of these books: kept, to be replayed by hand
    _copy_spool(backup / SPOOL, spool)
    _sync(config.root)
    return aside


def check_backup(config: Config, backup: Path) -> Facts:
    """That every file is there, unchanged, whole, and belongs to this system. Raises `BackupError`."""
    try:
        facts = msgspec.json.decode((backup / FACTS).read_bytes(), type=Facts)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(f"{backup} is no backup: {error}") from error
    for name, digest in facts.sha256.items():
        if not (backup / name).is_file() or _sha256(backup / name) != digest:
            raise BackupError(f"{backup / name} is missing or not what was written: take another backup")
    if bool(config.ledger.database) != (DUMP in facts.sha256) and (DUMP in facts.sha256 or BOOKS in facts.sha256):
        raise BackupError("its books are of the other kind of database: set ledger.database as it was")
    if facts.key and key_fingerprint(config) not in ("", facts.key):
        raise BackupError("its notices were signed with another key: put the secrets/signing.json of then into place")
    if BOOKS in facts.sha256:
        check_books(backup / BOOKS)
    return facts


def check_books(path: Path) -> None:
    """That a SQLite file of books is sound and its debits equal its credits. Raises `BackupError`."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
        try:
            says = database.execute("PRAGMA integrity_check").fetchone()[0]
            debit, credit = database.execute(_ADDED_UP).fetchone()
        except sqlite3.Error as error:
            raise BackupError(f"{path}: {error}") from error
    if says != "ok" or debit != credit:
        raise BackupError(f"{path}: {says}; debits {debit}, credits {credit}")


def copy_sqlite(source: Path, target: Path) -> None:
    """One moment of ``source``, which may be written meanwhile and isn't kept from it, as a file of its own."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30.0)) as origin,
        closing(sqlite3.connect(target)) as copy,
    ):
        origin.backup(copy)  # all pages in one read transaction: writers go on in the log
        copy.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)


def key_fingerprint(config: Config) -> str:
    """Tells one signing key from another and says nothing of it; empty where there is none."""
    path = config.path("secrets", "signing.json")
    return hashlib.sha256(b"dsp backup\0" + path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def _copy_spool(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.spool")):
        try:
            shutil.copyfile(path, target / path.name)
        except FileNotFoundError:  # booked and removed meanwhile: the books, copied later, have it
            (target / path.name).unlink(missing_ok=True)


def _swap(new: Path, path: Path, aside: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + PART)
    shutil.copyfile(new, fresh)
    fresh.chmod(0o600)
    _sync(fresh)
    for suffix in ("", "-wal", "-shm"):  # another file's log must not be replayed into this one
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(aside / old.name)
    fresh.rename(path)


def _run(program: str, url: str, *arguments: str) -> None:
    """PostgreSQL's own program; the password goes by the environment, where `ps` does not show it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    environment: Mapping[str, str] = {
        **os.environ,
        **({"PGPASSWORD": parts.pop("password")} if "password" in parts else {}),
    }
    command = [program, f"--dbname={make_conninfo(**parts)}", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BackupError(f"{program} is not installed (Debian: apt-get install postgresql-client)") from error
    if done.returncode:
        raise BackupError(f"{program}: {done.stderr.strip()}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
