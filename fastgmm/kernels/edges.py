"""Where something ends amid a vector: numbers of lanes, and loads that stop in time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from fastgmm.kernels.simd import I32, I64, Emitter, Value


def lane_numbers(e: Emitter, lanes: int | None = None) -> Value:
    """0, 1, 2, ... as i64, one a lane; as many as a vector has, or `lanes`."""
    lanes = lanes or e.lanes
    return ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))


def in_all_lanes(e: Emitter, number: Value, lanes: int | None = None) -> Value:
    """An i64 in all lanes."""
    lanes = lanes or e.lanes
    one = e.builder.insert_element(ir.Constant(ir.VectorType(I64, lanes), ir.Undefined), number, ir.Constant(I32, 0))
    return e.shuffle(one, one, [0] * lanes)


def lanes_before(e: Emitter, index: Any, end: Any, lanes: int | None = None) -> Value:
    """A mask of the lanes that hold elements before `end` where the first holds element `index`."""
    left = e.builder.sub(e.index(end), e.index(index))
    return e.builder.icmp_signed("<", lane_numbers(e, lanes), in_all_lanes(e, left, lanes))


def load_where(e: Emitter, mask: Value, pointer: Value, index: Any) -> Value:
    """Consecutive elements from `index` on, one for each lane of a mask; where it is not set nothing is read: 0."""
    kind = ir.VectorType(e.real, mask.type.count)
    address = e.builder.bitcast(e.at(pointer, index), kind.as_pointer())
    zeros = ir.Constant(kind, [0.0] * kind.count)
    name = f"llvm.masked.load.v{kind.count}f{8 * e.size}.p0"
    return e.call(name, kind, [address, ir.Constant(I32, e.size), mask, zeros])


def load_before(e: Emitter, pointer: Value, index: Any, end: Any) -> Value:
    """Consecutive elements from `index` on; from element `end` on nothing is read and lanes are 0."""
    return load_where(e, lanes_before(e, index, end), pointer, index)
