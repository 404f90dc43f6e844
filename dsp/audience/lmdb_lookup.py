"""Finds records in LMDB's pages where they lie: a batch of people in one kernel call, without a Python call per key.

LMDB's file format (version 1, unchanged since 2011; lmdb's mdb.c, "struct MDB_page", "MDB_node", "MDB_meta"): pages of
4 KiB or so, each with a 16-byte header (number 8, pad 2, flags 2, lower 2, upper 2) and sorted 2-byte offsets of its
nodes; a node is low 2, high 2, flags 2, key size 2, key, value. In a branch, low, high and flags are the child's page
number. Two meta pages take turns; a transaction's is the one that carries its number.

Read-only, and only under an open read transaction of the lmdb library: that is what keeps a writer from using the
pages of its snapshot again. Whatever looks wrong ends the batch with a code, and the caller asks the library instead.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dsp.audience.profile import PROFILE_BYTES
from dsp.audience.store import KEY_BYTES
from dsp.base.kernel import inlined, kernel
from dsp.base.memory import peek, peek16, peek32, peek64, peek64_big, prefetch, put, signed

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = 16
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
SUB_DATABASE = 2  # node flag
BIG_VALUE = 1  # node flag: the value lies on overflow pages
MAX_DEPTH = 32
# meta page, from its start: header, magic 4, version 4, address 8, size 8, two databases of 48, last page 8, number 8
META_DB = HEADER + 24 + 48
META_LAST, META_TXN = HEADER + 24 + 96, HEADER + 24 + 104
_PAGE_BYTES = HEADER + 24  # the free database's pad holds the page size
DB_ROOT, _DB_BYTES = 40, 48

# --- what a batch needs to know of a snapshot: int64[STATE_WIDTH] ----------------------------------------------------
(Z_TXN, Z_IDS, Z_PEOPLE, Z_PAGES) = range(4)  # transaction number, root pages of both tables, pages in use
STATE_WIDTH = 4

# --- what `look_up` keeps of the people still to be found: int64[WORK_ROWS, people] -----------------------------------
# row of the batch, the key's index, its slot, where the step before led to; the nodes of a leaf still in question
(W_WHO, W_KEY, W_SLOT, W_AT, W_FIRST, W_LEFT) = range(6)
WORK_ROWS = 6

# What `look_up` returns where it is not the number of broken records.
STALE = -1  # the transaction's meta page is gone: begin again
SMALL = -2  # the file has grown past the mapping: map again
STRANGE = -3  # not the format we know

NOT_FOUND = 0
BROKEN = -1


@inlined
def _node(base: int, page: int, k: int) -> int:
    """Where node ``k`` of the page at ``page`` begins."""
    return page + peek16(base, page + HEADER + 2 * k)


@inlined
def _nodes(base: int, page: int) -> int:
    return (peek16(base, page + 12) - HEADER) >> 1


@inlined
def _child(base: int, node: int) -> int:
    return peek16(base, node) | (peek16(base, node + 2) << 16) | (peek16(base, node + 4) << 32)


@inlined
def _after(base: int, node: int, wide: bool, high: np.uint64, low: np.uint64) -> bool:
    """Whether the node's key is greater than (high, low), or than the slot in ``low``."""
    if not wide:
        return bool(np.uint64(peek32(base, node + 8)) > low)
    first = peek64_big(base, node + 8)
    return bool((first > high) | ((first == high) & (peek64_big(base, node + 16) > low)))


@inlined
def _equal(base: int, node: int, wide: bool, high: np.uint64, low: np.uint64) -> bool:
    if not wide:
        return bool(peek16(base, node + 6) == 4 and np.uint64(peek32(base, node + 8)) == low)
    if peek16(base, node + 6) != KEY_BYTES:
        return False
    return bool(peek64_big(base, node + 8) == high and peek64_big(base, node + 16) == low)


@inlined
def _last_not_after(base: int, page: int, nodes: int, wide: bool, high: np.uint64, low: np.uint64) -> int:
    """The last of a page's nodes whose key is not greater, or its first (in a branch it stands for all before its
    second). Halving without a branch on what was compared, so that the processor runs ahead into the next look-up."""
    at, left = 0, nodes
    while left > 1:
        half = left >> 1
        at += 0 if _after(base, _node(base, page, at + half), wide, high, low) else half
        left -= half
    return _node(base, page, at)


@inlined
def _leaf(base: int, page_bytes: int, pages: int, root: int, wide: bool, high: np.uint64, low: np.uint64) -> int:
    """Where the leaf begins that this key is in if it is anywhere; NOT_FOUND or BROKEN."""
    number = root
    for _ in range(MAX_DEPTH):
        if number < 0 or number >= pages:
            return BROKEN if number != -1 else NOT_FOUND  # -1: an empty tree
        page = number * page_bytes
        flags = peek16(base, page + 10)
        if flags & LEAF:
            return page
        if (flags & BRANCH) == 0:
            return BROKEN
        number = _child(base, _last_not_after(base, page, _nodes(base, page), wide, high, low))
    return BROKEN


@inlined
def _in_leaf(base: int, page: int, wide: bool, high: np.uint64, low: np.uint64) -> int:
    """The node with this key in the leaf at ``page`` (as `_leaf` answers): its offset, NOT_FOUND or BROKEN."""
    if page <= 0:
        return page
    nodes = _nodes(base, page)
    node = _last_not_after(base, page, nodes, wide, high, low)
    return node if nodes > 0 and _equal(base, node, wide, high, low) else NOT_FOUND


@inlined
def _in_leaves(base: int, n: int, keys: np.int64, where: I64, at: I64, first: I64, left: I64) -> None:
    """`_in_leaf` for ``n`` keys of 16 bytes, in step: each halving asks for the node that the next one looks at.

    ``keys`` is the address of the keys, ``where`` int64[n] which one to find in the leaf at ``at`` int64[n], which
    becomes the node. ``first`` and ``left`` int64[n] are scratch.
    """
    for j in range(n):
        first[j] = left[j] = 0
        if at[j] > 0:
            left[j] = _nodes(base, at[j])
            prefetch(base + at[j] + HEADER + 2 * (left[j] >> 1))
    for j in range(n):
        if left[j] > 1:
            prefetch(base + _node(base, at[j], left[j] >> 1))
    searching = True
    while searching:
        searching = False
        for j in range(n):
            if left[j] > 1:
                high, low = peek64_big(keys, where[j] * KEY_BYTES), peek64_big(keys, where[j] * KEY_BYTES + 8)
                half = left[j] >> 1
                first[j] += 0 if _after(base, _node(base, at[j], first[j] + half), True, high, low) else half
                left[j] -= half
                prefetch(base + _node(base, at[j], first[j] + (left[j] >> 1)))
                searching = True
    for j in range(n):
        if at[j] > 0:
            high, low = peek64_big(keys, where[j] * KEY_BYTES), peek64_big(keys, where[j] * KEY_BYTES + 8)
            node = _node(base, at[j], first[j])
            at[j] = node if left[j] > 0 and _equal(base, node, True, high, low) else NOT_FOUND


@inlined
def _guess(base: int, page: int, slot: int) -> int:
    """Which node of the leaf at ``page`` is ``slot``'s where there is none missing: slots follow each other."""
    return min(max(slot - peek32(base, _node(base, page, 0) + 8), 0), max(_nodes(base, page) - 1, 0))


@inlined
def _of_slot(base: int, page: int, slot: int) -> int:
    """The node of ``slot`` in the leaf at ``page``, as `_in_leaf` answers."""
    node = _node(base, page, _guess(base, page, slot))
    if _nodes(base, page) > 0 and _equal(base, node, False, np.uint64(0), np.uint64(slot)):
        return node
    return _in_leaf(base, page, False, np.uint64(0), np.uint64(slot))


@inlined
def find_node(base: int, page_bytes: int, pages: int, root: int, wide: bool, high: np.uint64, low: np.uint64) -> int:
    """The node with this key: its offset from ``base``, NOT_FOUND or BROKEN. ``wide``: 16-byte keys, else uint32."""
    return _in_leaf(base, _leaf(base, page_bytes, pages, root, wide, high, low), wide, high, low)


@inlined
def _value(base: int, node: int, key_bytes: int, size: int) -> int:
    """Where a node's value is, BROKEN unless it has just this size and lies in its page."""
    length = peek16(base, node) | (peek16(base, node + 2) << 16)
    if length != size or (peek16(base, node + 4) & BIG_VALUE) != 0:
        return BROKEN
    return node + 8 + key_bytes


@kernel
def _named(base: int, page: int, name: U8) -> int:
    """Root page of the named database whose record is in the leaf at ``page``; STRANGE if it isn't there."""
    if (peek16(base, page + 10) & LEAF) == 0:
        return STRANGE
    for k in range(_nodes(base, page)):
        node = _node(base, page, k)
        if peek16(base, node + 6) != name.shape[0] or (peek16(base, node + 4) & SUB_DATABASE) == 0:
            continue
        same = True
        for j in range(name.shape[0]):
            same = same and peek(base, node + 8 + j) == name[j]
        record = _value(base, node, name.shape[0], _DB_BYTES)
        if same and record != BROKEN:
            return signed(peek64(base, record + DB_ROOT))
    return STRANGE


@inlined
def pages_of(base: int, meta: int) -> int:
    """How many pages the state of a meta page speaks of."""
    return signed(peek64(base, meta + META_LAST)) + 1


@inlined
def meta_of(base: int, page_bytes: int, mapped_bytes: int, txn: int) -> int:
    """Where the meta page of transaction ``txn`` begins; STALE, or SMALL where its pages reach past the mapping."""
    for k in range(2):
        meta = k * page_bytes
        if signed(peek64(base, meta + META_TXN)) == txn:
            return meta if pages_of(base, meta) * page_bytes <= mapped_bytes else SMALL
    return STALE


@kernel
def _attach(base: int, page_bytes: int, mapped_bytes: int, txn: int, ids: U8, people: U8, state: I64) -> int:
    """Fill ``state`` for transaction ``txn``; 0, STALE, SMALL or STRANGE."""
    meta = meta_of(base, page_bytes, mapped_bytes, txn)
    if meta < 0:
        return meta
    pages = pages_of(base, meta)
    root = signed(peek64(base, meta + META_DB + DB_ROOT))
    if root < 0 or root >= pages:
        return STRANGE
    state[Z_IDS] = _named(base, root * page_bytes, ids)
    state[Z_PEOPLE] = _named(base, root * page_bytes, people)
    if state[Z_IDS] == STRANGE or state[Z_PEOPLE] == STRANGE:
        return STRANGE
    state[Z_PAGES] = pages
    state[Z_TXN] = txn
    return 0


@kernel
def look_up(
    base: int,
    page_bytes: int,
    mapped_bytes: int,
    txn: int,
    ids: U8,
    people: U8,
    state: I64,
    keys: U8,
    wanted: I64,
    per_person: int,
    n: int,
    out: U8,
    work: I64,
    asked: I64,
) -> int:
    """Copy the record of each person's first wanted key that resolves into ``out`` uint8[n, PROFILE_BYTES].

    ``base`` is the address of the mapped file, ``ids`` and ``people`` the names of its tables, ``state`` is kept from
    call to call, ``work`` is int64[WORK_ROWS, >= n]. Rows of unknown people are zeroed; ``asked[0]`` becomes the
    number of wanted keys. Returns how many ids led to no record, or STALE, SMALL or STRANGE, upon which ``out`` is
    unspecified.

    Nearly each page is far away in memory. So everyone's look-up goes one step, then everyone's the next: the steps of
    different people don't wait for each other, and the processor has several reads under way.
    """
    if state[Z_TXN] != txn:
        came = _attach(base, page_bytes, mapped_bytes, txn, ids, people, state)
        if came != 0:
            return came
    pages, id_root, people_root, zero = state[Z_PAGES], state[Z_IDS], state[Z_PEOPLE], np.uint64(0)
    key, to = np.int64(keys.ctypes.data), np.int64(out.ctypes.data)
    who, where, slots, at = work[W_WHO], work[W_KEY], work[W_SLOT], work[W_AT]
    broken = 0
    left = n  # people not found yet: who[:left], and the next key each is looked up by, where[:left]
    asked[0] = 0
    for i in range(n):
        who[i], where[i] = i, i * per_person
        for k in range(i * per_person, (i + 1) * per_person):
            asked[0] += wanted[k] != 0
    while left > 0:
        # Everyone's next wanted key; who has none left is unknown.
        before, left = left, 0
        for j in range(before):
            i, k = who[j], where[j]
            while k < (i + 1) * per_person and wanted[k] == 0:
                k += 1
            if k < (i + 1) * per_person:
                who[left], where[left] = i, k
                left += 1
            else:
                for b in range(PROFILE_BYTES >> 3):
                    put(to, i * (PROFILE_BYTES >> 3) + b, 0)
        for j in range(left):
            high, low = peek64_big(key, where[j] * KEY_BYTES), peek64_big(key, where[j] * KEY_BYTES + 8)
            at[j] = _leaf(base, page_bytes, pages, id_root, True, high, low)
        _in_leaves(base, left, key, where, at, work[W_FIRST], work[W_LEFT])
        for j in range(left):
            slot = _value(base, at[j], KEY_BYTES, 4) if at[j] > 0 else at[j]
            slots[j] = np.int64(peek32(base, slot)) if slot > 0 else slot
            at[j] = slot
        for j in range(left):
            if at[j] > 0:
                at[j] = _leaf(base, page_bytes, pages, people_root, False, zero, np.uint64(slots[j]))
                at[j] = at[j] if at[j] > 0 else BROKEN
        for j in range(left):
            if at[j] > 0:
                prefetch(base + _node(base, at[j], 0))
        for j in range(left):
            if at[j] > 0:
                prefetch(base + _node(base, at[j], _guess(base, at[j], slots[j])))
        for j in range(left):
            if at[j] > 0:
                node = _of_slot(base, at[j], slots[j])
                at[j] = _value(base, node, 4, PROFILE_BYTES) if node > 0 else BROKEN
                if node > 0:
                    prefetch(base + node + 64)
                    prefetch(base + node + 128)
        before, left = left, 0
        for j in range(before):
            i = who[j]
            if at[j] > 0:
                for b in range(PROFILE_BYTES >> 3):
                    put(to, i * (PROFILE_BYTES >> 3) + b, signed(peek64(base, at[j] + 8 * b)))
                continue
            broken += 1 if at[j] == BROKEN else 0
            who[left], where[left] = i, where[j] + 1
            left += 1
    return broken


def page_size(head: bytes) -> int:
    """The page size of a file that begins with ``head`` (at least 64 bytes); 0 where it is not the format we know."""
    flags = int.from_bytes(head[10:12], "little")
    magic, version = int.from_bytes(head[16:20], "little"), int.from_bytes(head[20:24], "little")
    size = int.from_bytes(head[_PAGE_BYTES : _PAGE_BYTES + 4], "little")
    known = flags & META and magic == MAGIC and version == VERSION and 512 <= size <= 32_768 and size & (size - 1) == 0
    return size if known else 0
