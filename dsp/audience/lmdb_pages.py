"""LMDB's file as pages: which hold something, which ids point to a person, and wiping what nothing refers to any more.

Deleting from LMDB frees pages but leaves their bytes, and a page in use keeps old bytes between its node offsets and
its nodes. So erasure is: delete, commit until both meta pages speak of a state without the person, wait for readers of
older states, then overwrite with zeros every page that neither state refers to and every gap inside the others. A
deleted key may also live on as the signpost of an inner page: it is replaced by the smallest key it points to. After
that the file holds nothing but live records, encrypted or not, which a scan of the file proves.

The layout is LMDB 0.9's (`lmdb.h`, `mdb.c`: MDB_page, MDB_meta, MDB_db, MDB_node); anything else is refused. Only call
this while holding the environment's write transaction: nobody else changes pages then.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numba as nb
import numpy as np
import numpy.typing as npt

from dsp.audience.store import StoreError

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

PAGE_HEADER = 16
NODE_HEADER = 8
MAGIC = 0xBEEFC0DE
DATA_VERSION = 1
P_BRANCH, P_LEAF, P_OVERFLOW, P_META = 0x01, 0x02, 0x04, 0x08
F_BIGDATA, F_SUBDATA = 0x01, 0x02
DB_BYTES = 48
DB_ROOT = 40
_META_DBS = PAGE_HEADER + 24  # of the free list, then of the main table
_META_LAST = _META_DBS + 2 * DB_BYTES
NO_ROOT = 0xFFFFFFFFFFFFFFFF
MAX_DEPTH = 64
WIPED = b"wiped"  # a key of the main table: when it was last done


@dataclass(frozen=True)
class Wiped:
    """What a wipe did."""

    pages: int  # of the file
    live: int
    wiped_pages: int  # that held old bytes and are zero now
    wiped_bytes: int  # in the gaps of live pages
    seconds: float


@nb.njit(cache=True, nogil=True)
def _word(file: U8, at: int, size: int) -> int:
    """``size`` little-endian bytes as a number."""
    value = np.uint64(0)
    for k in range(size - 1, -1, -1):
        value = (value << np.uint64(8)) | np.uint64(file[at + k])
    return int(np.int64(value))


@nb.njit(cache=True, nogil=True)
def mark_live(file: U8, page_bytes: int, root: int, subtables: bool, live: U8) -> int:
    """Mark in ``live`` uint8[pages] every page of the tree at ``root`` and, with ``subtables``, of the tables in it.

    Returns the pages marked, -1 where the tree makes no sense.
    """
    stack = np.empty(4096, np.int64)
    tables = np.empty(4096, np.uint8)
    depth, marked = 0, 0
    stack[0], tables[0] = root, 1 if subtables else 0
    depth = 1
    while depth > 0:
        depth -= 1
        page, has_tables = stack[depth], tables[depth]
        if page < 0 or page >= live.shape[0]:
            return -1
        if live[page]:
            continue  # the other meta page refers to it too
        base = page * page_bytes
        flags = _word(file, base + 10, 2)
        live[page] = 1
        marked += 1
        if flags & (P_BRANCH | P_LEAF) == 0:
            return -1
        nodes = (_word(file, base + 12, 2) - PAGE_HEADER) >> 1
        for i in range(nodes):
            at = base + _word(file, base + PAGE_HEADER + 2 * i, 2)
            if flags & P_BRANCH:
                if depth == stack.shape[0]:
                    return -1
                stack[depth] = _word(file, at, 6)
                tables[depth] = has_tables
                depth += 1
                continue
            node_flags = _word(file, at + 4, 2)
            data = at + NODE_HEADER + _word(file, at + 6, 2)
            if node_flags & F_BIGDATA:
                first = _word(file, data, 8)
                if first < 0 or first >= live.shape[0]:
                    return -1
                for k in range(_word(file, first * page_bytes + 12, 4)):
                    live[first + k] = 2
                    marked += 1
            elif node_flags & F_SUBDATA and has_tables:
                inner = _word(file, data + DB_ROOT, 8)
                if inner >= 0:
                    if depth == stack.shape[0]:
                        return -1
                    stack[depth] = inner
                    tables[depth] = 0
                    depth += 1
    return marked


@nb.njit(cache=True, nogil=True)
def renew_signposts(file: U8, page_bytes: int, live: U8) -> int:
    """In every live inner page, set each key to the smallest one below it, where their sizes agree; how many changed.

    Such a key is as good a signpost: what is left of it is smaller than the old one, which is not larger than it.
    """
    changed = 0
    for page in range(2, live.shape[0]):
        base = page * page_bytes
        if live[page] != 1 or _word(file, base + 10, 2) & P_BRANCH == 0:
            continue
        nodes = (_word(file, base + 12, 2) - PAGE_HEADER) >> 1
        for i in range(nodes):
            at = base + _word(file, base + PAGE_HEADER + 2 * i, 2)
            size = _word(file, at + 6, 2)
            if size == 0:
                continue
            child = at
            for _ in range(MAX_DEPTH):
                below = _word(file, child, 6) * page_bytes
                child = below + _word(file, below + PAGE_HEADER, 2)
                if _word(file, below + 10, 2) & P_LEAF:
                    break
            if _word(file, child + 6, 2) != size:
                continue
            differs = False
            for k in range(size):
                if file[at + NODE_HEADER + k] != file[child + NODE_HEADER + k]:
                    differs = True
                    file[at + NODE_HEADER + k] = file[child + NODE_HEADER + k]
            changed += 1 if differs else 0
    return changed


@nb.njit(cache=True, nogil=True)
def wipe_unused(file: U8, page_bytes: int, live: U8, out: I64) -> None:
    """Zero every page that isn't live and the gap of every live one; ``out`` int64[2]: pages, gap bytes that held any.

    Pages 0 and 1 are the metas; 2 in ``live`` marks overflow pages, which are left as they are.
    """
    for page in range(2, live.shape[0]):
        base = page * page_bytes
        start, end = 0, page_bytes
        if live[page] == 2:
            continue
        if live[page] == 1:
            start, end = _word(file, base + 12, 2), _word(file, base + 14, 2)
        held = 0
        for k in range(base + start, base + end):
            if file[k] != 0:
                held += 1
        if held:
            for k in range(base + start, base + end):
                file[k] = np.uint8(0)
            out[0 if live[page] == 0 else 1] += 1 if live[page] == 0 else held


@nb.njit(cache=True, nogil=True)
def keys_pointing_to(file: U8, page_bytes: int, root: int, wanted: U8, key_bytes: int, out: U8) -> int:
    """Collect into ``out`` uint8[m, key_bytes] the keys whose 4-byte value v has ``wanted[v]``; how many there are.

    More than fit are counted but not written. -1 where the tree makes no sense.
    """
    stack = np.empty(4096, np.int64)
    stack[0] = root
    depth, found = 1, 0
    while depth > 0:
        depth -= 1
        base = stack[depth] * page_bytes
        if base < 0 or base + page_bytes > file.shape[0]:
            return -1
        flags = _word(file, base + 10, 2)
        nodes = (_word(file, base + 12, 2) - PAGE_HEADER) >> 1
        for i in range(nodes):
            at = base + _word(file, base + PAGE_HEADER + 2 * i, 2)
            if flags & P_BRANCH:
                if depth == stack.shape[0]:
                    return -1
                stack[depth] = _word(file, at, 6)
                depth += 1
                continue
            if _word(file, at + 6, 2) != key_bytes:
                continue
            slot = _word(file, at + NODE_HEADER + key_bytes, 4)
            if slot < wanted.shape[0] and wanted[slot]:
                if found < out.shape[0]:
                    for k in range(key_bytes):
                        out[found, k] = file[at + NODE_HEADER + k]
                found += 1
    return found


class Pages:
    """The data file of the environment in directory ``path``, mapped. Use as a context manager."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Map the file. Raises `StoreError` where it isn't LMDB's, in the version we know."""
        self.path = path / "data.mdb"
        with self.path.open("r+b" if write else "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        self.file: U8 = np.frombuffer(self._map, np.uint8)
        magic, version = (int.from_bytes(self._map[at : at + 4], "little") for at in (PAGE_HEADER, PAGE_HEADER + 4))
        if magic != MAGIC or version & 0x3FFFFFFF != DATA_VERSION:
            self.close()
            raise StoreError(f"{self.path}: not an LMDB file of format {DATA_VERSION}")
        self.page_bytes = int(self.file[_META_DBS : _META_DBS + 4].view("<u4")[0])
        self.pages = len(self.file) // self.page_bytes

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap; idempotent."""
        if hasattr(self, "file"):
            del self.file
        self._map.close()

    def flush(self) -> None:
        """Make the changes durable."""
        self._map.flush()

    def _meta(self, which: int) -> tuple[int, int, int]:
        """(root of the free list, root of the main table, transaction) of a meta page."""
        base = which * self.page_bytes
        words = self.file[base : base + self.page_bytes].copy()
        free = int(words[_META_DBS + DB_ROOT : _META_DBS + DB_BYTES].view("<u8")[0])
        main = int(words[_META_DBS + DB_BYTES + DB_ROOT : _META_DBS + 2 * DB_BYTES].view("<u8")[0])
        return free, main, int(words[_META_LAST + 8 : _META_LAST + 16].view("<u8")[0])

    def live(self) -> U8:
        """uint8[pages]: which either meta page's state refers to. Raises `StoreError` where the file is damaged."""
        live = np.zeros(self.pages, np.uint8)
        for which in (0, 1):
            free, main, _ = self._meta(which)
            for root, tables in ((free, False), (main, True)):
                if root != NO_ROOT and mark_live(self.file, self.page_bytes, root, tables, live) < 0:
                    raise StoreError(f"{self.path}: damaged; load it anew")
        return live

    def table_root(self, name: bytes) -> int:
        """Root page of a named table in the newest state, -1 where there is none or it is empty."""
        metas = [self._meta(0), self._meta(1)]
        page = max(metas, key=lambda meta: meta[2])[1]
        while page != NO_ROOT:
            base = page * self.page_bytes
            raw = bytes(self.file[base : base + self.page_bytes])
            nodes = (int.from_bytes(raw[12:14], "little") - PAGE_HEADER) >> 1
            offsets = [
                int.from_bytes(raw[PAGE_HEADER + 2 * i : PAGE_HEADER + 2 * i + 2], "little") for i in range(nodes)
            ]
            if int.from_bytes(raw[10:12], "little") & P_BRANCH:
                raise StoreError(f"{self.path}: more tables than we make")
            for at in offsets:
                size = int.from_bytes(raw[at + 6 : at + 8], "little")
                if raw[at + NODE_HEADER : at + NODE_HEADER + size] == name:
                    data = at + NODE_HEADER + size
                    root = int.from_bytes(raw[data + DB_ROOT : data + DB_BYTES], "little")
                    return -1 if root == NO_ROOT else root
            return -1
        return -1


def ids_of_slots(path: Path, table: bytes, slots: list[int], key_bytes: int) -> U8:
    """The keys uint8[m, key_bytes] of ``table`` whose value is one of ``slots``, by one pass over the table's pages."""
    wanted = np.zeros(max(slots, default=0) + 1, np.uint8)
    wanted[slots] = 1
    with Pages(path) as pages:
        root = pages.table_root(table)
        if root < 0:
            return np.zeros((0, key_bytes), np.uint8)
        out = np.zeros((max(64, 64 * len(slots)), key_bytes), np.uint8)
        found = keys_pointing_to(pages.file, pages.page_bytes, root, wanted, key_bytes, out)
        if found > len(out):
            out = np.zeros((found, key_bytes), np.uint8)
            found = keys_pointing_to(pages.file, pages.page_bytes, root, wanted, key_bytes, out)
        if found < 0:
            raise StoreError(f"{pages.path}: damaged; load it anew")
        return out[:found]


def wipe(env: lmdb.Environment, path: Path, *, patience_s: float = 10.0) -> Wiped:
    """Overwrite everything in ``path``'s data file that no state of ``env`` refers to; see the module.

    Raises `StoreError` where a reader of an older state doesn't end within ``patience_s``.
    """
    began = time.perf_counter()
    for _ in range(2):  # both meta pages shall speak of a state after the deletion
        with env.begin(write=True) as txn:
            txn.put(WIPED, time.time_ns().to_bytes(8, "little"))
        env.sync(True)
    with env.begin(write=True) as txn:
        _wait_for_readers(env, txn.id() - 1, patience_s, path)
        with Pages(path, write=True) as pages:
            live = pages.live()
            out = np.zeros(2, np.int64)
            renew_signposts(pages.file, pages.page_bytes, live)
            wipe_unused(pages.file, pages.page_bytes, live, out)
            pages.flush()
            result = Wiped(pages.pages, int((live > 0).sum()), int(out[0]), int(out[1]), time.perf_counter() - began)
        txn.abort()
    return result


def _wait_for_readers(env: lmdb.Environment, oldest: int, patience_s: float, path: Path) -> None:
    """Until no reader is in a state older than transaction ``oldest`` - 1 (the older of the two metas)."""
    ends = time.monotonic() + patience_s
    while True:
        env.reader_check()
        rows = [line.split() for line in str(env.readers()).splitlines()[1:]]
        busy = [row for row in rows if len(row) == 3 and row[2].isdigit() and int(row[2]) < oldest - 1]
        if not busy:
            return
        if time.monotonic() > ends:
            raise StoreError(f"{path}: process {busy[0][0]} still reads an older state; end it and erase again")
        time.sleep(0.01)
