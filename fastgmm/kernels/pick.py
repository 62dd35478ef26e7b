"""Numbers that a mask picks, written one after the other: how lists of live rows are made.

AVX-512 has an instruction for this. AVX2 can permute the lanes of a register, and a table says for every mask which
permutation brings those that it picks to the front. What LLVM makes of `compress` without the instruction is far worse:
lanes are written one by one, and reading them back as a vector waits for all of these stores.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from fastgmm.kernels.simd import FLOAT, I32, I64, Emitter, Value

WORDS = 8  # of four bytes, that a permutation of AVX2 moves


def picking(e: Emitter) -> Emitter:
    """The emitter of what `append` is best called for, whole vectors or registers."""
    return e.narrow if e.registers.picks else e


def append(e: Emitter, mask: Value, number: Value, values: Value, numbers: Value, out: Value, used: Value) -> Value:
    """Append to two lists, `used` long, what belongs to the lanes of a mask; returns how long they are then.

    To `numbers` (int32): `number` plus that of the lane; to `out`: `values`. Behind the ends of the lists some of a
    vector is written.
    """
    b, integers = e.builder, ir.VectorType(I32, e.lanes)
    first = b.insert_element(ir.Constant(integers, ir.Undefined), b.trunc(number, I32), ir.Constant(I32, 0))
    every = e.shuffle(first, first, [0] * e.lanes)
    if e.registers.picks and e.narrow is e:
        chosen = b.zext(b.bitcast(mask, ir.IntType(e.lanes)), I64)
        lanes = _entry(e, chosen, 1)
        e.store(b.add(every, b.zext(lanes, integers)), numbers, used)
        words = _entry(e, chosen, WORDS // e.lanes)
        floats = ir.VectorType(FLOAT, WORDS)
        moved = [b.bitcast(values, floats), b.zext(words, ir.VectorType(I32, WORDS))]
        e.store(e.call("llvm.x86.avx2.permps", floats, moved), out, used)
    else:
        row = b.add(every, ir.Constant(integers, list(range(e.lanes))))
        name = "llvm.experimental.vector.compress."
        e.store(e.call(f"{name}v{e.lanes}i32", integers, [row, mask, row]), numbers, used)
        e.store(e.call(f"{name}{e.suffix}", e.vector, [values, mask, values]), out, used)
    return e.add(used, e.count(mask))


def _entry(e: Emitter, mask: Value, parts: int) -> Value:
    """The lanes that a mask picks, in order, and 0 for the rest, from a table of bytes; `parts` for each lane."""
    byte = ir.IntType(8)
    kind = ir.VectorType(byte, e.lanes * parts)
    rows = []
    for bits in range(1 << e.lanes):
        found = [parts * lane + part for lane in range(e.lanes) if bits >> lane & 1 for part in range(parts)]
        rows.append(ir.Constant(kind, found + [0] * (kind.count - len(found))))
    table = ir.Constant(ir.ArrayType(kind, len(rows)), rows)
    name = f"fastgmm.lanes.{e.lanes}.{parts}"
    module = e.builder.module
    if name in module.globals:
        place = module.globals[name]
    else:
        place = cgutils.add_global_variable(module, table.type, name)
        place.initializer, place.global_constant, place.linkage = table, True, "private"
    return e.builder.load(e.builder.gep(place, [e.index(0), mask]), align=1)
