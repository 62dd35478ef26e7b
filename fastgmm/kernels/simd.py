"""Explicit SIMD for Numba: a small vector language that emits LLVM IR.

Why it is like this
-------------------
1. Numba's loop vectoriser prefers 256-bit registers on many CPUs and cannot keep a block of accumulators in registers.
   The micro-kernels of `micro.py` therefore say what they mean: vectors, fused multiply-adds, loads and broadcasts.
2. A vector is always 64 bytes (8 float64 or 16 float32 lanes), whatever the CPU: LLVM splits it where registers are
   narrower, and loops that matter do so themselves (`Emitter.narrow`, `registers.py`). So the order of every sum, and
   with it every bit of a result, is the same on AVX2, AVX-512 and NEON.
3. No fast-math flag is set anywhere. A fused multiply-add is asked for by name, everything else is plain IEEE
   arithmetic, so inlining or unrolling can never change a result.
4. One source serves float64 and float32: the type of an emitter's first array decides.

A micro-kernel is a Python function ``kernel(e, *args)`` that is run once, at compile time, and writes instructions
through the `Emitter` ``e``. `@micro` turns it into a function that Numba code can call with arrays, pointers and
integers; nothing is returned, results go into arrays.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastgmm.kernels.registers import Registers, registers_of

VECTOR_BYTES = 64
PLAIN = Registers()
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

# (log(1 + r) - r) / r^2 on |r| <= 0.02976, found the same way; largest error of log: 4.5e-19.
LOG_COEFFICIENTS = (
    -0.4999999999999995,
    0.33333333333333287,
    -0.2500000000173918,
    0.20000000001581109,
    -0.16666656848123987,
    0.14285705360493006,
    -0.12517730815629263,
    0.11127230286199376,
)

# Doubles from 0.698 on, the bits of each range of them 2^48 apart, so that 1 lies in the middle of the tenth; numbers
# near the reciprocals of the ranges' centres, and the logarithms of their reciprocals.
LOG_BEGIN = 0x3FE6555555555555
RECIPROCALS = (
    *(1.4013671875, 1.3427734375, 1.28857421875, 1.23876953125, 1.192626953125, 1.149658203125, 1.10986328125),
    *(1.072509765625, 1.037841796875, 1.0, 0.950439453125, 0.897216796875, 0.849609375, 0.806640625, 0.76806640625),
    0.73291015625,
)
LOGARITHMS = (
    *(
        -0.337448322594268389,
        -0.294737204501218573,
        -0.253536350343925664,
        -0.214118573439883470,
        -0.176158397757539401,
    ),
    *(-0.139464683524210867, -0.104236837693144801, -0.070001477256435850, -0.037143361639446414, 0.0),
    *(
        0.0508308191088879843,
        0.1084577550724066622,
        0.1629785939508236916,
        0.2148770320784750290,
        0.2638790831011205794,
    ),
    0.3107321545259364494,
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
    registers : Registers
        The CPU's. The results are the same.
    lanes : int, optional
        Of a vector, if it is not one of 64 bytes.
    """

    def __init__(
        self, builder: ir.IRBuilder, real: ir.Type, registers: Registers = PLAIN, lanes: int | None = None
    ) -> None:
        self.builder = builder
        self.registers = registers
        self.real = real
        self.size = 8 if real == DOUBLE else 4
        self.lanes = lanes or VECTOR_BYTES // self.size
        self.permutes = registers.permutes and self.lanes * self.size == VECTOR_BYTES
        self.integer = ir.IntType(8 * self.size)
        self.vector = ir.VectorType(real, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.size}"

    @property
    def narrow(self) -> Emitter:
        """The emitter whose vectors are the CPU's registers; this one, if its vectors are."""
        lanes = self.registers.size // self.size
        return self if lanes >= self.lanes else Emitter(self.builder, self.real, self.registers, lanes)

    @property
    def doubles(self) -> Emitter:
        """The emitter for float64."""
        return Emitter(self.builder, DOUBLE, self.registers)

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

    def prefetch(self, pointer: Value, index: Any = 0, *, write: bool = False) -> None:
        """Ask for the cache line of an element, which need not exist; changes nothing but time."""
        address = self.builder.bitcast(self.at(pointer, index), ir.IntType(8).as_pointer())
        flags = [ir.Constant(I32, value) for value in (int(write), 3, 1)]  # to be read (or written), often, as data
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
        1.5 * 2^23, divided by u, rounds to a multiple of 1 / u and leaves n in the low bits on the way. u is 1
        (float32) or 16 (float64): then the lower four bits of n choose a root of 2 from a table, which is worth five
        terms of P. With `half` the result is exp(x / 2) at no further cost: only the constants differ. With `where` it
        is 0 outside that mask, and log 2 is one number, whose rounding adds |x| / 3 ulp (float32: |x| / 19), no more
        than the rounding of x does.
        """
        r, power, bits, series = self._reduced(x, 2.0 if half else 1.0, exact=where is None)
        if self.real != DOUBLE:
            return self.scaled(self.polynomial(r, series), power, bits, 0, where)
        root = self.chosen(bits, ROOTS)
        value = self.fma(root, self.mul(r, self.polynomial(r, series[1:])), root)
        return self.scaled(value, power, bits, 4, where)

    def add_exp(self, total: Value, x: Value, where: Value) -> Value:
        """total + `exp`(x) where the mask says so, an operation shorter than the two: root and power come first."""
        if self.real != DOUBLE:
            return self.plus(total, self.exp(x, where=where))
        r, power, bits, series = self._reduced(x, 1.0, exact=False)
        # both are masked: what underflows takes a hundred cycles, and 0 times infinity is no number
        scale = self.scaled(self.chosen(bits, ROOTS), power, bits, 4, where)
        return self.select(where, self.fma(scale, self.polynomial(r, series), total), total)

    def _reduced(self, x: Value, unit: float, *, exact: bool) -> tuple[Value, Value, Value, list[float]]:
        """What `exp` calls r, n / u, a vector with n in its low bits, and the coefficients of exp(r / unit)."""
        mantissa, parts = (52, 16) if self.real == DOUBLE else (23, 1)
        magic = self.constant(1.5 * 2.0**mantissa / parts)
        shifted = self.fma(x, self.constant(INVERSE_LN2 / unit), magic)
        power = self.minus(shifted, magic)
        r = self.fma(power, self.constant(-LN2_HIGH[self.size] * unit), x)
        if exact:
            r = self.fma(power, self.constant(-LN2_LOW[self.size] * unit), r)
        bits = self.builder.bitcast(shifted, ir.VectorType(self.integer, self.lanes))
        return r, power, bits, [c / unit**i for i, c in enumerate((1.0, 1.0, *EXP_COEFFICIENTS[self.size]))]

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

    def chosen(self, numbers: Value, values: Sequence[float]) -> Value:
        """The one of 16 values that the lowest four bits of every lane say (float64 only)."""
        builder = self.builder
        if self.permutes:
            low, high = (ir.Constant(self.vector, list(part)) for part in (values[:8], values[8:]))
            return self.call("llvm.x86.avx512.vpermi2var.pd.512", self.vector, [low, numbers, high])
        kind = ir.ArrayType(DOUBLE, len(values))
        table = cgutils.alloca_once_value(builder, ir.Constant(kind, list(values)))
        result = self.zero()
        for lane in range(self.lanes):
            where = ir.Constant(I32, lane)
            number = builder.and_(builder.extract_element(numbers, where), ir.Constant(I64, len(values) - 1))
            value = builder.load(builder.gep(table, [self.index(0), number]))
            result = builder.insert_element(result, value, where)
        return result

    def log_and_inverse(self, x: Value) -> tuple[Value, Value]:
        """log(x) within 5 ulp and 1 / x within 2 ulp for normal x > 0 (float64 only), without a division.

        x = 2^n m with m in [0.698, 1.396). With c near 1 / m from a table, r = m c - 1 has no rounding error to speak
        of, log m = log(1 / c) + r + r^2 Q(r), and c (1 - r) (1 + r^2) is 1 / m but for r^4, which one step of Newton's
        method of third order takes away.
        """
        builder = self.builder
        integers = ir.VectorType(self.integer, self.lanes)

        def every(value: int) -> Value:
            return ir.Constant(integers, [value] * self.lanes)

        raw = builder.bitcast(x, integers)
        above = builder.sub(raw, every(LOG_BEGIN))  # n in the exponent's bits, the number of the range below them
        power = builder.and_(above, every(-1 << 52))
        m = builder.bitcast(builder.sub(raw, power), self.vector)
        exponent = builder.sitofp(builder.ashr(above, every(52)), self.vector)
        number = builder.lshr(above, every(48))
        one = self.constant(1.0)
        c = self.chosen(number, RECIPROCALS)
        r = self.fma(m, c, self.constant(-1.0))
        square = self.mul(r, r)
        rest = self.fma(square, self.polynomial(r, LOG_COEFFICIENTS), r)
        log = self.plus(self.fma(exponent, self.constant(LN2_HIGH[8]), self.chosen(number, LOGARITHMS)), rest)
        near = self.minus(one, r)
        y = self.mul(c, self.fma(near, square, near))
        left = self.fma(builder.fneg(m), y, one)
        inverse = builder.bitcast(self.fma(y, self.fma(left, left, left), y), integers)
        return log, builder.bitcast(builder.sub(inverse, power), self.vector)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Sum of coefficients[i] x^i by Horner's rule."""
        value = self.constant(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.constant(c))
        return value


def micro(emit: Callable[..., None], *, apart: bool = False) -> Any:
    """Make ``emit(e, *args)`` callable from Numba code.

    Arrays and pointers arrive as pointers to their first element, integers as i64. The element type of the first of
    them that holds floats sets the emitter's. The instructions become part of the caller or, with `apart`, a function
    of their own, whose registers nothing around it takes, and which several calls share.
    """
    name = f"{emit.__module__}.{emit.__qualname__}.{next(_numbers)}"  # two closures of one factory differ

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
            registers = registers_of(getattr(context.codegen(), "_tm_features", ""))
            if apart:
                builder.call(_function(builder.module, emit, name, values, real, registers), values)
            else:
                emit(Emitter(builder, real, registers), *values)
            return context.get_dummy_value()

        return signature, codegen

    function.__doc__ = emit.__doc__
    function.__name__ = emit.__name__
    return function


_numbers = itertools.count()


def _function(
    module: ir.Module,
    emit: Callable[..., None],
    name: str,
    values: Sequence[Value],
    real: ir.Type,
    registers: Registers,
) -> ir.Function:
    """A micro-kernel as a function of the module, written there once for each list of types."""
    kinds = [value.type for value in values]
    name = ".".join([name, *(str(kind).replace("*", "_") for kind in kinds)])
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(Emitter(builder, real, registers), *function.args)
    builder.ret_void()
    return function


micro_apart = functools.partial(micro, apart=True)  # for long loops: what is around them takes no registers from them
