"""The machine's floating-point peak: a loop of fused multiply-adds that never leaves the registers.

    python -m benchmarks.peak                     # and what products reach; writes benchmarks/figures/peak.json

Every share of peak in this project is a share of what this loop reaches in the same run, because clocks change with the
load, the vector width and the neighbours. The loop is emitted as LLVM IR: as many independent accumulators as hide the
unit's latency (4 cycles, 2 units) and fit the register file.

No product of matrices reaches it, since its operands have to be loaded. Two more figures say what can be expected: the
same accumulators as a register tile whose operands lie in the first-level cache (`product_peak`), without anything that
a whole product needs besides, and NumPy's own product of two large matrices (`matmul`).
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from benchmarks.data import SMALL
from benchmarks.record import circumstances, save

ALIGNMENT = 64


def vector_bytes() -> tuple[int, int]:
    """Return the width of a vector register and the number of accumulators to use."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 24
    if features.get("avx2") and features.get("fma"):
        return 32, 12
    return 16, 24 if "neon" in features else 12


DEPTH = 128  # of the register tile's product: its operands take 32 KB
COLUMNS = 3  # vectors a row of the register tile


@functools.cache
def _loop(dtype: str, *, loads: bool = False):
    """Return ``loop(count, seed, address)``, its operations a round and the bytes of operands that it reads."""
    width, accumulators = vector_bytes()
    scalar = {"float64": ir.DoubleType(), "float32": ir.FloatType()}[dtype]
    size = {"float64": 8, "float32": 4}[dtype]
    lanes = width // size
    vector = ir.VectorType(scalar, lanes)
    rows = accumulators // COLUMNS

    @intrinsic
    def run(typingctx, count, seed, address):  # noqa: ARG001 - Numba fixes an intrinsic's signature
        def codegen(context, builder, sig, args):  # noqa: ARG001 - Numba fixes this one, too
            # by name: llvmlite cannot declare vector intrinsics
            name = f"llvm.fma.v{lanes}f{8 * size}"
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            seed = args[1] if dtype == "float64" else builder.fptrunc(args[1], scalar)
            i64 = args[0].type

            def splat(value):
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

            def operands(index):
                """A pair for each accumulator: from memory, a step of the product after the other, or of registers."""
                if not loads:
                    return [(value, factor) for value in values]
                step = builder.and_(index, i64(DEPTH - 1))
                left = builder.inttoptr(args[2], scalar.as_pointer())
                right = builder.gep(left, [i64(DEPTH * rows)])
                left = builder.gep(left, [builder.mul(step, i64(rows))])
                right = builder.gep(right, [builder.mul(step, i64(COLUMNS * lanes))])
                right = [builder.gep(right, [i64(j * lanes)]) for j in range(COLUMNS)]
                right = [builder.load(builder.bitcast(place, vector.as_pointer()), align=width) for place in right]
                left = [splat(builder.load(builder.gep(left, [i64(i)]))) for i in range(rows)]
                return [(x, y) for x in left for y in right]

            factor = splat(builder.fsub(ir.Constant(scalar, 1.0), seed))
            start = [splat(builder.fmul(seed, ir.Constant(scalar, float(i + 1)))) for i in range(accumulators)]
            entry = builder.block
            body, done = builder.append_basic_block("body"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            index = builder.phi(i64)
            index.add_incoming(i64(0), entry)
            values = [builder.phi(vector) for _ in range(accumulators)]
            for phi, value in zip(values, start, strict=True):
                phi.add_incoming(value, entry)
            after = [builder.call(fma, [x, y, phi]) for phi, (x, y) in zip(values, operands(index), strict=True)]
            following = builder.add(index, i64(1))
            index.add_incoming(following, body)
            for phi, value in zip(values, after, strict=True):
                phi.add_incoming(value, body)
            builder.cbranch(builder.icmp_signed("<", following, args[0]), body, done)
            builder.position_at_end(done)
            total = after[0]
            for value in after[1:]:
                total = builder.fadd(total, value)
            out = builder.extract_element(total, ir.IntType(32)(0))
            return out if dtype == "float64" else builder.fpext(out, ir.DoubleType())

        return types.float64(types.int64, types.float64, types.int64), codegen

    @numba.njit("float64(int64, float64, int64)", nogil=True)
    def loop(count, seed, address):
        return run(count, seed, address)

    return loop, 2.0 * lanes * accumulators, DEPTH * (rows * size + COLUMNS * width)


def _rate(dtype: str, threads: int, seconds: float, rounds: int, *, loads: bool) -> float:
    loop, flops, needed = _loop(dtype, loads=loads)
    rooms = [np.zeros(needed + 2 * ALIGNMENT, np.uint8) for _ in range(threads)]
    places = [room.ctypes.data + -room.ctypes.data % ALIGNMENT for room in rooms]
    count = 1_000_000
    start = time.perf_counter()
    loop(count, 1e-9, places[0])
    count = max(1, int(count * seconds / (time.perf_counter() - start)))
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(lambda place: loop(count, 1e-9, place), places))
            best = max(best, threads * count * flops / (time.perf_counter() - start) / 1e9)
    return best


def peak(dtype: str = "float64", threads: int = 1, seconds: float = 0.2, rounds: int = 5) -> float:
    """Return the best rate of several rounds, in GFLOP/s of all threads together.

    Parameters
    ----------
    dtype : {"float64", "float32"}
    threads : int
    seconds : float
        Length of a round.
    rounds : int
    """
    return _rate(dtype, threads, seconds, rounds, loads=False)


def product_peak(dtype: str = "float64", threads: int = 1, seconds: float = 0.2, rounds: int = 5) -> float:
    """Return the best rate of the same multiply-adds with operands from the first-level cache, in GFLOP/s.

    A product's innermost loop: of `DEPTH` steps, each loads a vector for every column and a number for every row of a
    tile of registers. The parameters are those of `peak`.
    """
    return _rate(dtype, threads, seconds, rounds, loads=True)


def matmul(dtype: str = "float64", threads: int = 1, size: int = 2000, rounds: int = 7) -> float:
    """Return the best rate of NumPy's product of two matrices of `size` rows and columns, in GFLOP/s."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((size, size)).astype(dtype) for _ in range(2))
    out, best = np.empty_like(x), 0.0
    with threadpool_limits(threads, "blas"):
        for _ in range(rounds):
            start = time.perf_counter()
            np.matmul(x, y, out=out)
            best = max(best, 2.0 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


RATES = {
    "multiply-adds in registers": peak,
    "with operands from the first-level cache": product_peak,
    "NumPy's product of two matrices of 2000 x 2000": matmul,
}


def main() -> None:
    threads = min(2, os.cpu_count() or 1)
    figures: dict[str, Any] = {"rates": {}, "where": circumstances(threads=threads)}
    print(f"vectors of {vector_bytes()[0]} bytes; GFLOP/s with 1 and with {threads} threads")
    for name, rate in RATES.items():
        row = {dtype: [rate(dtype, 1), rate(dtype, threads)] for dtype in ("float64", "float32")}
        figures["rates"][name] = row
        text = ", ".join(f"{dtype} {one:.1f} {many:.1f}" for dtype, (one, many) in row.items())
        print(f"{name:50} {text}", flush=True)
    if not SMALL:
        save("peak", figures)


if __name__ == "__main__":
    main()
