"""Explicit SIMD for Numba: a small vector language that emits LLVM IR.

Why it is like this
-------------------
1. Numba's loop vectoriser prefers 256-bit registers on many CPUs and cannot keep a block of accumulators in registers.
   The micro-kernels of `micro.py` therefore say what they mean: vectors, fused multiply-adds, loads and broadcasts.
2. A vector is always 64 bytes (8 float64 or 16 float32 lanes), whatever the CPU: LLVM splits it where registers are
   narrower. So the order of every sum, and with it every bit of a result, is the same on AVX2, AVX-512 and NEON.
3. No fast-math flag is set anywhere. A fused multiply-add is asked for by name, everything else is plain IEEE
   arithmetic, so inlining or unrolling can never change a result.
4. One source serves float64 and float32: the type of an emitter's first array decides.

A micro-kernel is a Python function ``kernel(e, *args)`` that is run once, at compile time, and writes instructions
through the `Emitter` ``e``. `@micro` turns it into a function that Numba code can call with arrays, pointers and
integers; nothing is returned, results go into arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

VECTOR_BYTES = 64
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
DOUBLE, FLOAT = ir.DoubleType(), ir.FloatType()
Value: TypeAlias = ir.Value

# log 2 = high + low, by element size in bytes.
LN2_HIGH = {8: 0.6931471805599453, 4: 0.693147182464599609375}
LN2_LOW = {8: 2.3190468138462996e-17, 4: -1.9046542999577682e-09}
INVERSE_LN2 = 1.4426950408889634

# (exp(r) - 1 - r) / r^2 on |r| <= log(2) / 32 (float64) or log(2) / 2 (float32), interpolated at the Chebyshev nodes in
# 60-digit arithmetic; largest relative error of exp: 2.8e-17 (float64), 1.0e-8 (float32).
EXP_COEFFICIENTS = {
    8: (0.5, 0.16666666665301690860, 0.04166666666496044968, 0.00833344970125345675, 0.00138890343485994634),
    4: (0.5, 0.16666576989698775683, 0.041666554617204574203, 0.0083631790527225773704, 0.0013926183587713494542),
}

# (2 atanh(f) / f - 2) / f^2 as a polynomial in f^2 on |f| <= (sqrt(2) - 1) / (sqrt(2) + 1), found the same way; largest
# relative error of log: 4.6e-18.
LOG_COEFFICIENTS = (
    0.66666666666666697293,
    0.39999999999898272776,
    0.28571428626533615934,
    0.22222211043776858238,
    0.18182895750119194042,
    0.15331501611145327709,
    0.14619166134887971366,
)


ROOTS = tuple(2.0 ** (i / 16) for i in range(16))
"""What exp multiplies by, chosen by the last four bits of 16 log2 of its argument."""


class Emitter:
    """Writes vector instructions for one element type.

    Parameters
    ----------
    builder : ir.IRBuilder
        Where instructions go.
    real : ir.Type
        Element type, `DOUBLE` or `FLOAT`.
    permutes : bool
        Whether the CPU picks lanes of two vectors by an index and scales by powers of two in one instruction each
        (AVX-512). The results are the same.
    """

    def __init__(self, builder: ir.IRBuilder, real: ir.Type, *, permutes: bool = False) -> None:
        self.builder = builder
        self.permutes = permutes
        self.real = real
        self.size = 8 if real == DOUBLE else 4
        self.lanes = VECTOR_BYTES // self.size
        self.integer = ir.IntType(8 * self.size)
        self.vector = ir.VectorType(real, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.size}"

    # -- integers, addresses, control flow -----------------------------------------------------------------------------
    def index(self, value: Any) -> Value:
        """An i64 from a Python int (or an i64, unchanged)."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def add(self, a: Any, b: Any) -> Value:
        """Integer a + b."""
        return self.builder.add(self.index(a), self.index(b))

    def times(self, a: Any, b: Any) -> Value:
        """Integer a * b."""
        return self.builder.mul(self.index(a), self.index(b))

    def at(self, pointer: Value, index: Any) -> Value:
        """Address of element `index`."""
        return self.builder.gep(pointer, [self.index(index)])

    @contextlib.contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Value]:
        """``for i in range(start, stop, step)``; yields i."""
        with cgutils.for_range_slice(self.builder, self.index(start), self.index(stop), self.index(step), intp=I64) as (
            i,
            _,
        ):
            yield i

    @contextlib.contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """``if condition:``."""
        with self.builder.if_then(condition):
            yield

    def variable(self, initial: Value) -> Value:
        """A mutable variable; LLVM keeps it in a register. Returns its address for `get` and `set`."""
        slot = cgutils.alloca_once(self.builder, initial.type)
        self.builder.store(initial, slot)
        return slot

    def get(self, slot: Value) -> Value:
        """Value of a variable."""
        return self.builder.load(slot)

    def set(self, slot: Value, value: Value) -> None:
        """Assign to a variable."""
        self.builder.store(value, slot)

    # -- vectors -------------------------------------------------------------------------------------------------------
    def constant(self, value: float) -> Value:
        """All lanes equal to a Python number."""
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def zero(self) -> Value:
        """All lanes 0."""
        return self.constant(0.0)

    def load(self, pointer: Value, index: Any = 0) -> Value:
        """`lanes` consecutive elements from `index` on; no alignment is asked for."""
        address = self.builder.bitcast(self.at(pointer, index), self.vector.as_pointer())
        return self.builder.load(address, align=self.size)

    def store(self, value: Value, pointer: Value, index: Any = 0) -> None:
        """Write `lanes` consecutive elements (of the vector's own type)."""
        address = self.builder.bitcast(self.at(pointer, index), value.type.as_pointer())
        self.builder.store(value, address, align=4)

    def prefetch(self, pointer: Value, index: Any = 0) -> None:
        """Ask for the cache line of an element, which need not exist; changes nothing but time."""
        address = self.at(pointer, index)
        flags = [ir.Constant(I32, value) for value in (0, 3, 1)]  # to be read, often, as data
        self.call("llvm.prefetch.p0", ir.VoidType(), [address, *flags])

    def scalar(self, pointer: Value, index: Any = 0) -> Value:
        """One element."""
        return self.builder.load(self.at(pointer, index))

    def splat(self, scalar: Value) -> Value:
        """A scalar in all lanes."""
        one = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), mask)

    def broadcast(self, pointer: Value, index: Any = 0) -> Value:
        """One element of memory in all lanes."""
        return self.splat(self.scalar(pointer, index))

    def call(self, name: str, result: ir.Type, arguments: Sequence[Value]) -> Value:
        """An LLVM intrinsic by its mangled name."""
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, list(arguments))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c with one rounding."""
        return self.call(f"llvm.fma.{self.suffix}", self.vector, [a, b, c])

    def plus(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.builder.fadd(a, b)

    def minus(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.builder.fsub(a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self.builder.fmul(a, b)

    def over(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self.builder.fdiv(a, b)

    def sqrt(self, a: Value) -> Value:
        """Square root, correctly rounded."""
        return self.call(f"llvm.sqrt.{self.suffix}", self.vector, [a])

    def compare(self, relation: str, a: Value, b: Value) -> Value:
        """Ordered comparison (false where an operand is NaN); a mask."""
        return self.builder.fcmp_ordered(relation, a, b)

    def select(self, mask: Value, yes: Value, no: Value) -> Value:
        """Lane by lane: yes where mask, else no."""
        return self.builder.select(mask, yes, no)

    def maximum(self, a: Value, b: Value) -> Value:
        """max(a, b); b where a is NaN."""
        return self.select(self.compare(">", a, b), a, b)

    def bits(self, mask: Value) -> Value:
        """A mask as an integer, lane i in bit i."""
        return self.builder.bitcast(mask, ir.IntType(self.lanes))

    def any(self, mask: Value) -> Value:
        """Whether any lane is set."""
        return self.builder.icmp_unsigned("!=", self.bits(mask), ir.Constant(ir.IntType(self.lanes), 0))

    def count(self, mask: Value) -> Value:
        """How many lanes are set, an i64."""
        return self.call("llvm.ctpop.i64", I64, [self.builder.zext(self.bits(mask), I64)])

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes picked from the concatenation of a and b."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, mask)

    def half(self, a: Value, which: int) -> Value:
        """The lower (0) or upper (1) half of a vector."""
        n = a.type.count // 2
        return self.shuffle(a, a, range(which * n, (which + 1) * n))

    def total(self, a: Value) -> Value:
        """Sum over the lanes in a fixed order (halves are added until one lane is left)."""
        while a.type.count > 1:
            a = self.builder.fadd(self.half(a, 0), self.half(a, 1))
        return self.builder.extract_element(a, ir.Constant(I32, 0))

    def widen(self, a: Value) -> list[Value]:
        """A vector as float64 vectors of 8 lanes, in order."""
        if self.real == DOUBLE:
            return [a]
        wide = ir.VectorType(DOUBLE, self.lanes // 2)
        return [self.builder.fpext(self.half(a, which), wide) for which in (0, 1)]

    # -- elementary functions ------------------------------------------------------------------------------------------
    def exp(self, x: Value, *, half: bool = False, where: Value | None = None) -> Value:
        """exp(x) for -700 <= x <= 700 (float64) or -86 <= x <= 86 (float32); within 1.5 ulp there, garbage outside.

        x = n log(2) / u + r with |r| <= log(2) / 2 u; exp(r) = 1 + r + r^2 P(r). Adding and subtracting 1.5 * 2^52 or
        1.5 * 2^23, divided by u, rounds to a multiple of 1 / u and leaves n in the low bits on the way. u is 1 (float32)
        or 16 (float64): then the lower four bits of n choose a root of 2 from a table, which is worth five terms of P. With `half` the result is exp(x / 2) at no further cost: only the constants
        differ. With `where` it is 0 outside that mask, and log 2 is one number, whose rounding adds |x| / 3 ulp
        (float32: |x| / 19), no more than the rounding of x does.
        """
        builder = self.builder
        mantissa, parts = (52, 16) if self.real == DOUBLE else (23, 1)
        unit = 2.0 if half else 1.0
        magic = self.constant(1.5 * 2.0**mantissa / parts)
        shifted = self.fma(x, self.constant(INVERSE_LN2 / unit), magic)
        n = self.minus(shifted, magic)  # a multiple of 1 / u
        r = self.fma(n, self.constant(-LN2_HIGH[self.size] * unit), x)
        if where is None:
            r = self.fma(n, self.constant(-LN2_LOW[self.size] * unit), r)
        series = [c / unit**i for i, c in enumerate((1.0, 1.0, *EXP_COEFFICIENTS[self.size]))]
        bits = builder.bitcast(shifted, ir.VectorType(self.integer, self.lanes))
        if parts == 1:
            value = self.polynomial(r, series)
        else:
            root = self.chosen(bits)
            value = self.fma(root, self.mul(r, self.polynomial(r, series[1:])), root)
        return self.scaled(value, n, bits, parts.bit_length() - 1, where)

    def scaled(self, value: Value, power: Value, bits: Value, fraction: int, where: Value | None) -> Value:
        """value 2^floor(power), which is no subnormal number; 0 outside `where`.

        `bits` are those of a sum whose last bit is worth 2^-fraction and stands for as much of `power`.
        """
        builder = self.builder
        mantissa = 52 if self.real == DOUBLE else 23
        if self.permutes:
            every = ir.Constant(ir.VectorType(I1, self.lanes), [1] * self.lanes)
            mask = self.bits(every if where is None else where)
            nearest = ir.Constant(I32, 4)  # rounding as everywhere else
            name = f"llvm.x86.avx512.mask.scalef.p{'d' if self.size == 8 else 's'}.512"
            return self.call(name, self.vector, [value, power, self.zero(), mask, nearest])
        integers = bits.type
        whole = builder.ashr(bits, ir.Constant(integers, [fraction] * self.lanes))
        scale = builder.shl(whole, ir.Constant(integers, [mantissa] * self.lanes))
        result = builder.bitcast(builder.add(builder.bitcast(value, integers), scale), self.vector)
        return result if where is None else self.select(where, result, self.zero())

    def chosen(self, numbers: Value) -> Value:
        """The one of `ROOTS` that the lowest four bits of every lane say."""
        builder = self.builder
        if self.permutes:
            low, high = (ir.Constant(self.vector, list(part)) for part in (ROOTS[:8], ROOTS[8:]))
            return self.call("llvm.x86.avx512.vpermi2var.pd.512", self.vector, [low, numbers, high])
        kind = ir.ArrayType(DOUBLE, len(ROOTS))
        table = cgutils.alloca_once_value(builder, ir.Constant(kind, list(ROOTS)))
        result = self.zero()
        for lane in range(self.lanes):
            where = ir.Constant(I32, lane)
            number = builder.and_(builder.extract_element(numbers, where), ir.Constant(I64, len(ROOTS) - 1))
            root = builder.load(builder.gep(table, [self.index(0), number]))
            result = builder.insert_element(result, root, where)
        return result

    def log_and_inverse(self, x: Value) -> tuple[Value, Value]:
        """log(x) within 5 ulp and 1 / x within 2 ulp for normal x > 0 (float64 only), at the price of one division.

        x = 2^n m with m in [sqrt(1/2), sqrt(2)); log m = 2 f + f^3 Q(f^2), f = (m - 1) / (m + 1). With
        g = 1 / (m (m + 1)), f = (m - 1) m g and 1 / m = (m + 1) g.
        """
        builder = self.builder
        integers = ir.VectorType(self.integer, self.lanes)

        def every(value: int) -> Value:
            return ir.Constant(integers, [value] * self.lanes)

        raw = builder.bitcast(x, integers)
        # the exponent of x / sqrt(1/2): subtract the bits of sqrt(1/2), keep the exponent field
        n = builder.ashr(builder.sub(raw, every(0x3FE6A09E667F3BCD)), every(52))
        power = builder.shl(n, every(52))
        m = builder.bitcast(builder.sub(raw, power), self.vector)
        exponent = builder.sitofp(n, self.vector)
        one = self.constant(1.0)
        above = self.plus(m, one)
        g = self.over(one, self.mul(m, above))
        f = self.mul(self.mul(self.minus(m, one), m), g)
        s = self.mul(f, f)
        q = self.mul(self.mul(f, s), self.polynomial(s, LOG_COEFFICIENTS))
        tail = self.fma(exponent, self.constant(LN2_LOW[8]), q)
        log = self.fma(exponent, self.constant(LN2_HIGH[8]), self.fma(f, self.constant(2.0), tail))
        inverse = builder.bitcast(self.mul(above, g), integers)
        return log, builder.bitcast(builder.sub(inverse, power), self.vector)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Sum of coefficients[i] x^i by Horner's rule."""
        value = self.constant(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.constant(c))
        return value


def micro(emit: Callable[..., None]) -> Any:
    """Make ``emit(e, *args)`` callable from Numba code.

    Arrays and pointers arrive as pointers to their first element, integers as i64. The element type of the first of
    them that holds floats sets the emitter's.
    """

    @intrinsic
    def function(typingctx: Any, *argtypes: Any) -> Any:
        signature = types.void(types.StarArgTuple(argtypes))

        def codegen(context: Any, builder: Any, sig: Any, args: Sequence[Value]) -> Value:
            real = None
            values = []
            for kind, value in zip(argtypes, cgutils.unpack_tuple(builder, args[0]), strict=True):
                if real is None and isinstance(getattr(kind, "dtype", None), types.Float):
                    real = context.get_data_type(kind.dtype)
                if isinstance(kind, types.Array):
                    values.append(context.make_array(kind)(context, builder, value).data)
                elif isinstance(kind, types.Integer) and kind.bitwidth < I64.width:
                    values.append(builder.sext(value, I64))
                else:
                    values.append(value)
            permutes = "+avx512f" in getattr(context.codegen(), "_tm_features", "")
            emit(Emitter(builder, real, permutes=permutes), *values)
            return context.get_dummy_value()

        return signature, codegen

    function.__doc__ = emit.__doc__
    function.__name__ = emit.__name__
    return function
