"""Raw loads and stores for walkers of wires and pages: an address and an index, one machine instruction, unchecked.

The walkers read every byte of every request, and three habits of numba's arrays cost more than the reading: an array
argument is seven words (a call of a small function with four arrays passes 28), it is reference-counted (197 calls in
the JSON walker), and ``a[i]`` on a signed index selects for Python's negative indexes. Passing addresses as plain int64
made both walkers about three times as fast. `special_at` looks at 32 bytes at once, which array code can't.

Nothing here checks anything. The invariant that makes it safe: a body in ``Batch.text`` is followed by a zero byte,
which no JSON token contains, and the array ends in ``PADDING`` spare bytes, so a scan that starts inside a body stops
at or before its terminator, a protobuf varint that starts inside one ends within ten bytes, and a 32-byte load never
leaves the array. Whoever calls a kernel keeps the arrays alive meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from dsp.base.kernel import inlined

AHEAD = 8  # rows: about what a row's work hides of a cache miss
PADDING = 64  # spare bytes at the end of a text array: a vector load may look this far past its string

_I1 = ir.IntType(1)
_I8 = ir.IntType(8)
_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_BLOCK = ir.VectorType(_I8, 32)


def _pointer(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    """``(kind *) address + index``."""
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])


def _unaligned(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    """Load a ``kind`` from byte ``index`` on, at any alignment."""
    pointer = builder.bitcast(_pointer(builder, address, index, _I8), kind.as_pointer())
    return builder.load(pointer, align=1)


@intrinsic
def peek(typing: Any, text: Any, i: Any) -> Any:
    """Byte ``i`` of a text."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.load(_pointer(builder, args[0], args[1], _I8)), _I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def peek64(typing: Any, text: Any, i: Any) -> Any:
    """Bytes ``i..i+7`` of a text as one little-endian uint64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _unaligned(builder, args[0], args[1], _I64)

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def peek64_big(typing: Any, text: Any, i: Any) -> Any:
    """Bytes ``i..i+7`` of a text as one big-endian uint64: texts order as these do."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bswap(_unaligned(builder, args[0], args[1], _I64))

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def peek32(typing: Any, text: Any, i: Any) -> Any:
    """Bytes ``i..i+3`` of a text as one little-endian uint32, in an int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(_unaligned(builder, args[0], args[1], _I32), _I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def peek16(typing: Any, text: Any, i: Any) -> Any:
    """Bytes ``i..i+1`` of a text as one little-endian uint16, in an int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(_unaligned(builder, args[0], args[1], _I16), _I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Bring the cache line at an address nearer, without waiting for it; any address will do."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])  # to read, into every level, data
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def lowest_bit(typing: Any, word: Any) -> Any:
    """Index of the lowest set bit of a uint64; 64 of none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(_I1, 0))

    return types.int64(types.uint64), codegen


@intrinsic
def count_bits(typing: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def peek_double(typing: Any, text: Any, i: Any) -> Any:
    """Bytes ``i..i+7`` of a text as a little-endian IEEE double."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _unaligned(builder, args[0], args[1], ir.DoubleType())

    return types.float64(types.int64, types.int64), codegen


@intrinsic
def put_byte(typing: Any, text: Any, i: Any, value: Any) -> Any:
    """Set byte ``i`` of a text to ``value & 255``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[2], _I8), _pointer(builder, args[0], args[1], _I8))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def at(typing: Any, words: Any, i: Any) -> Any:
    """Word ``i`` of an int64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], args[1], _I64))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def at_u64(typing: Any, words: Any, i: Any) -> Any:
    """Word ``i`` of a uint64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], args[1], _I64))

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def at_i16(typing: Any, words: Any, i: Any) -> Any:
    """Element ``i`` of an int16 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sext(builder.load(_pointer(builder, args[0], args[1], _I16)), _I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def signed(typing: Any, word: Any) -> Any:
    """A uint64's bits as int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]

    return types.int64(types.uint64), codegen


@intrinsic
def put(typing: Any, words: Any, i: Any, value: Any) -> Any:
    """Set word ``i`` of an int64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1], _I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def special_at(typing: Any, text: Any, i: Any) -> Any:
    """How far from ``i`` the first quote, backslash or control character is; 32 if not within 32 bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = _unaligned(builder, args[0], args[1], _BLOCK)

        def every(byte: int) -> Any:
            return ir.Constant(_BLOCK, [byte] * 32)

        quote = builder.icmp_unsigned("==", block, every(0x22))
        escape = builder.icmp_unsigned("==", block, every(0x5C))
        control = builder.icmp_unsigned("<", block, every(0x20))
        bits = builder.bitcast(builder.or_(builder.or_(quote, escape), control), _I32)
        return builder.zext(builder.cttz(bits, ir.Constant(_I1, 0)), _I64)

    return types.int64(types.int64, types.int64), codegen


def constant(name: str, array: npt.NDArray[Any]) -> Callable[[], int]:
    """An intrinsic that gives, inside kernels, the address of a read-only copy of ``array`` in the machine code."""
    raw = np.ascontiguousarray(array).tobytes()

    @intrinsic
    def address(typing: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            known = builder.module.globals.get(name)
            if known is None:
                known = cgutils.global_constant(builder.module, name, cgutils.make_bytearray(raw))
                known.align = 32
            return builder.ptrtoint(known, _I64)

        return types.int64(), codegen

    return address


@nb.njit(cache=True)
def copy_words(source: int, source_at: int, target: int, target_at: int, n: int) -> None:
    """Copy ``n`` words."""
    for k in range(n):
        put(target, target_at + k, at(source, source_at + k))


@inlined
def prefetch_row(array: npt.NDArray[Any], i: int) -> None:
    """`prefetch` where row ``i`` begins."""
    prefetch(np.int64(array.ctypes.data) + i * array.strides[0])


@inlined
def prefetch_cell(array: npt.NDArray[Any], i: int, k: int) -> None:
    """`prefetch` ``array[i, k]``."""
    prefetch(np.int64(array.ctypes.data) + i * array.strides[0] + k * array.strides[1])
