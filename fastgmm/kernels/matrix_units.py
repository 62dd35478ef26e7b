"""Matrix units: Intel's AMX, which multiplies 16 x 32 by 32 x 16 numbers of 16 bits (bfloat16) in one instruction.

A float32 number is the sum of three such numbers, high + middle + low. Of the nine products of two numbers' parts the
six largest make up the product to within 2^-22, as a rule 2^-26, and every sum is a float32: what comes out is as good
as float32 arithmetic, and the units do it at more than twice the speed of the multiply-add units.

- `split` takes numbers apart; `paired` puts the parts of two vectors side by side, as the units want them.
- `multiply_add` adds the six products of up to two left factors with up to two right factors to their sums, which stay
  in the units' registers.

Tiles are 1 KiB: 16 rows of 64 bytes. A left factor holds in row i the numbers i of 32 consecutive terms of the sum; a
right factor holds in row p the terms 2 p and 2 p + 1 of its 16 columns, side by side. Which 32 terms a tile begins with
is up to the caller, as long as both factors agree. The three parts of a tile follow one another.

What limits them (measured): a product takes 16 cycles, in a chain of sums or not, but a core whose units are always
busy with numbers other than zero, and with as many loads of tiles as six products of two by two factors need, runs at
2.5 GHz instead of 3.1. So 6.4 ns a product are the limit, and not 5.2. A load from a tile that was just stored waits
for the products before the store, and what comes after the load waits with it: leave some hundred cycles between them.

Sums are in a fixed order, so results are the same for any number of threads. Numbers below 2^-126 count as zero here,
also as parts, so callers see to it that numbers are not small (`programs.py`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable

from llvmlite import ir
from numba.core.registry import cpu_target

from fastgmm.kernels.simd import I64, Emitter, Value

TILE_BYTES, TILE_FLOATS = 1024, 256
SIDE, TERMS = 16, 32  # rows and columns of a product, terms of its sums
PARTS = 3
STEP_FLOATS = PARTS * TILE_FLOATS  # three parts of a tile, as float32 elements
PRODUCTS = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 0), (0, 2))
"""Parts of the left and of the right factor, in the order in which products are added; each time one changes."""

SWITCH = "FASTGMM_MATRIX_UNITS"
"""Environment variable: 0 leaves the units alone."""

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def available() -> bool:
    """Whether this process may use matrix units; asks the system for its permission the first time."""
    if os.environ.get(SWITCH, "1") == "0" or not sys.platform.startswith("linux"):
        return False
    _, _, features = cpu_target.target_context.codegen().magic_tuple()  # what Numba compiles for
    return {"+amx-tile", "+amx-bf16", "+avx512f"} <= set(str(features).split(",")) and _permitted()


def _permitted() -> bool:
    """Ask Linux for the tiles' registers, which it gives to a process (all of its threads) on request only."""
    try:
        syscall = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    return bool(syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


def _immediate(number: int) -> Value:
    return ir.Constant(ir.IntType(8), number)


def configure(e: Emitter) -> None:
    """Give all eight tile registers their full size; `release` follows."""
    module, name = e.builder.module, "fastgmm_tile_sizes"
    sizes = bytes([1, 0] + [0] * 14) + b"".join((64).to_bytes(2, "little") for _ in range(8)) + bytes(16)
    sizes += bytes([SIDE] * 8 + [0] * 8)
    if name not in module.globals:
        kind = ir.ArrayType(ir.IntType(8), len(sizes))
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant = "internal", True
        table.initializer = ir.Constant(kind, bytearray(sizes))
    place = e.builder.bitcast(module.globals[name], ir.IntType(8).as_pointer())
    e.call("llvm.x86.ldtilecfg", ir.VoidType(), [place])


def release(e: Emitter) -> None:
    """Give the registers back, so that the system need not keep them."""
    e.call("llvm.x86.tilerelease", ir.VoidType(), [])


def clear(e: Emitter, register: int) -> None:
    """Zero in a tile register."""
    e.call("llvm.x86.tilezero", ir.VoidType(), [_immediate(register)])


def _move(e: Emitter, name: str, register: int, place: Value) -> None:
    address = e.builder.bitcast(place, ir.IntType(8).as_pointer())
    e.call(name, ir.VoidType(), [_immediate(register), address, ir.Constant(I64, 64)])


def bring(e: Emitter, register: int, place: Value) -> None:
    """Load a tile register, (16, 16) float32."""
    _move(e, "llvm.x86.tileloadd64", register, place)


def keep(e: Emitter, register: int, place: Value) -> None:
    """Store a tile register, (16, 16) float32."""
    _move(e, "llvm.x86.tilestored64", register, place)


def awake(e: Emitter, place: Value) -> None:
    """Store a register for nothing, after no more than some hundred products.

    On Sapphire Rapids a store after more than 120 products takes 240 ns, and after fewer next to nothing (measured).
    """
    keep(e, 4, place)


def multiply_add(
    e: Emitter,
    lefts: list[Value],
    rights: list[Value],
    sums: Callable[[int, int], int],
    meanwhile: Callable[[int], None] | None = None,
    before: Callable[[int], None] | None = None,
) -> None:
    """Register ``sums(l, r)`` += left factor l times right factor r, up to two of each, three parts each.

    Registers 4 and 5 hold a part of the right factors, 6 and 7 one of the left factors. ``meanwhile(i)`` writes other
    instructions after the i-th of the six products: the units leave the rest of the processor to them. ``before(r)``
    writes what comes between the loads of the first product and its sum in register r: to store what the register held
    and to begin anew there lets the other sums' products hide the wait for the last ones of this.
    """
    held: list[int | None] = [None, None]  # which part of the left, the right factors is in the registers
    for place, parts in enumerate(PRODUCTS):
        for side, (first, factors) in enumerate(((6, lefts), (4, rights))):
            if held[side] != parts[side]:
                held[side] = parts[side]
                for g, tile in enumerate(factors):
                    _move(e, "llvm.x86.tileloadd64", first + g, e.at(tile, parts[side] * TILE_FLOATS))
        for g in range(len(lefts)):
            for h in range(len(rights)):
                if before is not None and place == 0:
                    before(sums(g, h))
                numbers = [_immediate(r) for r in (sums(g, h), 6 + g, 4 + h)]
                e.call("llvm.x86.tdpbf16ps", ir.VoidType(), numbers)
        if meanwhile is not None:
            meanwhile(place)


def _integers(e: Emitter) -> ir.Type:
    return ir.VectorType(e.integer, e.lanes)


def _every(e: Emitter, value: int) -> Value:
    return ir.Constant(_integers(e), [value] * e.lanes)


def split(e: Emitter, x: Value) -> list[Value]:
    """x as the bits of three float32 vectors whose lower halves are zero: high is rounded, middle cut, the sum exact.

    x - high has at most 16 significant bits, of which middle takes 8.
    """
    builder = e.builder
    mask = _every(e, 0xFFFF0000)
    parts = []
    for rounded in (True, False):
        bits = builder.bitcast(x, _integers(e))
        if rounded:
            bits = builder.add(bits, _every(e, 0x8000))
        part = builder.and_(bits, mask)
        parts.append(part)
        x = e.minus(x, builder.bitcast(part, e.vector))
    # the mask tells for subnormal numbers only, whose stray bits would go to a neighbour in `paired`
    return [*parts, builder.and_(builder.bitcast(x, _integers(e)), mask)]


def paired(e: Emitter, first: list[Value], second: list[Value], out: Value) -> None:
    """Store a row of a tile's three parts: in each lane the upper halves of a number of `first` and of `second`."""
    builder = e.builder
    for part, (a, b) in enumerate(zip(first, second, strict=True)):
        both = builder.or_(builder.lshr(a, _every(e, 16)), b)
        e.store(builder.bitcast(both, e.vector), out, part * TILE_FLOATS)
