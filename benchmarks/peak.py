"""The machine's floating-point peak: a loop of fused multiply-adds that never leaves the registers.

Every share of peak in this project is a share of what this loop reaches in the same run, because clocks change with the
load, the vector width and the neighbours. The loop is emitted as LLVM IR: as many independent accumulators as hide the
unit's latency (4 cycles, 2 units) and fit the register file.

``python -m benchmarks.peak`` prints GFLOP/s for one and for all threads.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


def vector_bytes() -> tuple[int, int]:
    """Return the width of a vector register and the number of accumulators to use."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 24
    if features.get("avx2") and features.get("fma"):
        return 32, 12
    return 16, 24 if "neon" in features else 12


@functools.cache
def _loop(dtype: str):
    width, accumulators = vector_bytes()
    scalar = {"float64": ir.DoubleType(), "float32": ir.FloatType()}[dtype]
    lanes = width // {"float64": 8, "float32": 4}[dtype]
    vector = ir.VectorType(scalar, lanes)

    @intrinsic
    def run(typingctx, count, seed):  # noqa: ARG001 - Numba fixes an intrinsic's signature
        def codegen(context, builder, sig, args):  # noqa: ARG001 - Numba fixes this one, too
            # by name: llvmlite cannot declare vector intrinsics
            name = f"llvm.fma.v{lanes}f{64 if dtype == 'float64' else 32}"
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            seed = args[1] if dtype == "float64" else builder.fptrunc(args[1], scalar)

            def splat(value):
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

            factor = splat(builder.fsub(ir.Constant(scalar, 1.0), seed))
            start = [splat(builder.fmul(seed, ir.Constant(scalar, float(i + 1)))) for i in range(accumulators)]
            entry = builder.block
            body, done = builder.append_basic_block("body"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            index = builder.phi(args[0].type)
            index.add_incoming(ir.Constant(args[0].type, 0), entry)
            values = [builder.phi(vector) for _ in range(accumulators)]
            for phi, value in zip(values, start, strict=True):
                phi.add_incoming(value, entry)
            after = [builder.call(fma, [phi, factor, phi]) for phi in values]
            following = builder.add(index, ir.Constant(args[0].type, 1))
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

        return types.float64(types.int64, types.float64), codegen

    @numba.njit("float64(int64, float64)", nogil=True)
    def loop(count, seed):
        return run(count, seed)

    return loop, 2.0 * lanes * accumulators


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
    loop, flops = _loop(dtype)
    count = 1_000_000
    start = time.perf_counter()
    loop(count, 1e-9)
    count = max(1, int(count * seconds / (time.perf_counter() - start)))
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(lambda _: loop(count, 1e-9), range(threads)))
            best = max(best, threads * count * flops / (time.perf_counter() - start) / 1e9)
    return best


def main() -> None:
    threads = os.cpu_count() or 1
    print(f"vectors of {vector_bytes()[0]} bytes")
    for dtype in ("float64", "float32"):
        print(f"{dtype}: {peak(dtype):7.1f} GFLOP/s with 1 thread, {peak(dtype, threads):7.1f} with {threads}")


if __name__ == "__main__":
    main()
