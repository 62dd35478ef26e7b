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

from fastgmm.kernels import elementary
from fastgmm.kernels.registers import Registers, registers_of

VECTOR_BYTES = 64
PLAIN = Registers()
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
DOUBLE, FLOAT = ir.DoubleType(), ir.FloatType()
Value: TypeAlias = ir.Value


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
        if isinstance(b, int) and b == 0:
            return self.index(a)
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
    def steps(self, stop: int, step: int) -> Iterator[Any]:
        """``for i in range(0, stop, step)`` that is written once; without a loop where there is one step: i is 0."""
        with contextlib.nullcontext(0) if step >= stop else self.loop(0, self.hidden(stop), step) as i:
            yield i

    def hidden(self, value: Any) -> Value:
        """An i64 that the compiler does not see through: it unrolls no loop that ends there, joins it with no other."""
        return self.builder.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [self.index(value)], side_effect=False)

    def room(self, vectors: int) -> Value:
        """Address of room for so many vectors, of the function's own; where indices are constant, registers."""
        kind = ir.ArrayType(self.real, vectors * self.lanes)
        return self.builder.gep(cgutils.alloca_once(self.builder, kind), [self.index(0), self.index(0)])

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
        """exp(x), or exp(x / 2), where a mask says so and 0 elsewhere; see `elementary.exps`."""
        return elementary.exps(self, [x], half=half, where=None if where is None else [where])[0]

    def add_exp(self, total: Value, x: Value, where: Value) -> Value:
        """total + exp(x) where the mask says so; see `elementary.add_exps`."""
        return elementary.add_exps(self, [total], [x], [where])[0]

    def log_and_inverse(self, x: Value) -> tuple[Value, Value]:
        """log(x) and 1 / x (float64 only); see `elementary.logs_and_inverses`."""
        return elementary.logs_and_inverses(self, [x])[0]

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
    function.emit = emit  # to write it with another emitter
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
    if registers.size < VECTOR_BYTES:  # what they cannot hold lies on the stack, and none of it across two cache lines
        function.attributes.alignstack = registers.size
    builder = ir.IRBuilder(function.append_basic_block())
    emit(Emitter(builder, real, registers), *function.args)
    builder.ret_void()
    return function


micro_apart = functools.partial(micro, apart=True)  # for long loops: what is around them takes no registers from them
