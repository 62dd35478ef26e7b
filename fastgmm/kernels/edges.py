"""Where something ends amid a vector: numbers of lanes, and loads that stop in time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastgmm.kernels.simd import I32, I64, Emitter, Value


def lane_numbers(e: Emitter) -> Value:
    """0, 1, 2, ... as i64, one a lane."""
    return ir.Constant(ir.VectorType(I64, e.lanes), list(range(e.lanes)))


def in_all_lanes(e: Emitter, number: Value) -> Value:
    """An i64 in all lanes."""
    kind = ir.VectorType(I64, e.lanes)
    one = e.builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(I32, 0))
    return e.shuffle(one, one, [0] * e.lanes)


def load_before(e: Emitter, pointer: Value, index: Any, end: Any) -> Value:
    """Consecutive elements from `index` on; from element `end` on nothing is read and lanes are 0."""
    left = e.builder.sub(e.index(end), e.index(index))
    mask = e.builder.icmp_signed("<", lane_numbers(e), in_all_lanes(e, left))
    address = e.builder.bitcast(e.at(pointer, index), e.vector.as_pointer())
    arguments = [address, ir.Constant(I32, e.size), mask, e.zero()]
    return e.call(f"llvm.masked.load.{e.suffix}.p0", e.vector, arguments)
