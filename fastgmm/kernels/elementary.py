"""exp, log and 1 / x for vectors, as `Emitter` writes them.

Each function takes several vectors, so that their long chains overlap, and gives one of each. The bits are the same
whatever the CPU: where one scales by a power of two, another adds to the bits of the exponent, and where one picks
from a table by an instruction, another does so in halves or one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir
from numba.core import cgutils

if TYPE_CHECKING:
    from fastgmm.kernels.simd import Emitter

Value: TypeAlias = ir.Value
I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
DOUBLE, FLOAT = ir.DoubleType(), ir.FloatType()
MANTISSA = {8: 52, 4: 23}  # bits, by element size in bytes
FRACTION = 4  # bits of exp's argument that choose a root (float64)
EIGHT = 8  # lanes of a table's pick on CPUs that pick words

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


def exps(e: Emitter, xs: Sequence[Value], *, half: bool = False, where: Sequence[Value] | None = None) -> list[Value]:
    """exp(x) for -700 <= x <= 700 (float64) or -86 <= x <= 86 (float32); within 1.5 ulp there, garbage outside.

    x = n log(2) / u + r with |r| <= log(2) / 2 u; exp(r) = 1 + r + r^2 P(r). Adding and subtracting 1.5 * 2^52 or
    1.5 * 2^23, divided by u, rounds to a multiple of 1 / u and leaves n in the low bits on the way. u is 1
    (float32) or 16 (float64): then the lower four bits of n choose a root of 2 from a table, which is worth five
    terms of P. With `half` the result is exp(x / 2) at no further cost: only the constants differ. With `where` it
    is 0 outside those masks, and log 2 is one number, whose rounding adds |x| / 3 ulp (float32: |x| / 19), no more
    than the rounding of x does.
    """
    masks: Sequence[Value | None] = [None] * len(xs) if where is None else where
    found = [_reduced(e, x, 2.0 if half else 1.0, exact=where is None) for x in xs]
    if e.real != DOUBLE:
        return [
            scaled(e, e.polynomial(r, series), power, bits, mask)
            for (r, power, bits, series), mask in zip(found, masks, strict=True)
        ]
    out = []
    if e.permutes:
        for (r, power, bits, series), mask in zip(found, masks, strict=True):
            root = chosen(e, [bits], ROOTS)[0]
            value = e.fma(root, e.mul(r, e.polynomial(r, series[1:])), root)
            out.append(scaled(e, value, power, bits, mask))
        return out
    scales = root_powers(e, [bits for _, _, bits, _ in found])
    for (r, _, _, series), scale, mask in zip(found, scales, masks, strict=True):
        value = e.fma(scale, e.mul(r, e.polynomial(r, series[1:])), scale)
        out.append(value if mask is None else e.select(mask, value, e.zero()))
    return out


def add_exps(e: Emitter, totals: Sequence[Value], xs: Sequence[Value], where: Sequence[Value]) -> list[Value]:
    """total + `exps` where the masks say so, an operation shorter than the two: root and power come first."""
    if e.real != DOUBLE:
        return [e.plus(total, value) for total, value in zip(totals, exps(e, xs, where=where), strict=True)]
    found = [_reduced(e, x, 1.0, exact=False) for x in xs]
    if e.permutes:
        # both are masked: what underflows takes a hundred cycles, and 0 times infinity is no number
        scales = [
            scaled(e, chosen(e, [bits], ROOTS)[0], power, bits, mask)
            for (_, power, bits, _), mask in zip(found, where, strict=True)
        ]
    else:
        scales = root_powers(e, [bits for _, _, bits, _ in found])
    return [
        e.select(mask, e.fma(scale, e.polynomial(r, series), total), total)
        for (r, _, _, series), scale, mask, total in zip(found, scales, where, totals, strict=True)
    ]


def _reduced(e: Emitter, x: Value, unit: float, *, exact: bool) -> tuple[Value, Value, Value, list[float]]:
    """What `exps` calls r, n / u, a vector with n in its low bits, and the coefficients of exp(r / unit)."""
    magic = e.constant(1.5 * 2.0 ** MANTISSA[e.size] / (2**FRACTION if e.real == DOUBLE else 1))
    shifted = e.fma(x, e.constant(INVERSE_LN2 / unit), magic)
    power = e.minus(shifted, magic)
    r = e.fma(power, e.constant(-LN2_HIGH[e.size] * unit), x)
    if exact:
        r = e.fma(power, e.constant(-LN2_LOW[e.size] * unit), r)
    bits = e.builder.bitcast(shifted, integers(e))
    return r, power, bits, [c / unit**i for i, c in enumerate((1.0, 1.0, *EXP_COEFFICIENTS[e.size]))]


def scaled(e: Emitter, value: Value, power: Value, bits: Value, where: Value | None) -> Value:
    """value 2^floor(power), which is no subnormal number; 0 outside `where`.

    For float32 `bits` are those of a sum whose last bit is worth 1 and stands for as much of `power`.
    """
    builder = e.builder
    if e.permutes:
        every = ir.Constant(ir.VectorType(I1, e.lanes), [1] * e.lanes)
        mask = e.bits(every if where is None else where)
        nearest = ir.Constant(I32, 4)  # rounding as everywhere else
        name = f"llvm.x86.avx512.mask.scalef.p{'d' if e.size == 8 else 's'}.512"
        return e.call(name, e.vector, [value, power, e.zero(), mask, nearest])
    exponent = builder.shl(bits, every_lane(e, MANTISSA[e.size]))
    result = builder.bitcast(builder.add(builder.bitcast(value, bits.type), exponent), e.vector)
    return result if where is None else e.select(where, result, e.zero())


def root_powers(e: Emitter, bits: Sequence[Value]) -> list[Value]:
    """2^(n / 16), n in the low bits; no subnormal number (float64 only).

    n is added to the bits of a root above the last 48, where its own last four must have been taken off before.
    """
    upper = MANTISSA[8] - FRACTION
    words = [bits_of(root) - (i << upper) for i, root in enumerate(ROOTS)]
    found = chosen_words(e, bits, words)
    powers = [e.builder.shl(n, every_lane(e, upper)) for n in bits]
    return [e.builder.bitcast(e.builder.add(*pair), e.vector) for pair in zip(found, powers, strict=True)]


def chosen(e: Emitter, numbers: Sequence[Value], values: Sequence[float]) -> list[Value]:
    """Those of 16 values that the lowest four bits of every lane say (float64 only)."""
    if e.permutes:
        low, high = (ir.Constant(e.vector, list(part)) for part in (values[:8], values[8:]))
        return [e.call("llvm.x86.avx512.vpermi2var.pd.512", e.vector, [low, n, high]) for n in numbers]
    return [e.builder.bitcast(w, e.vector) for w in chosen_words(e, numbers, [bits_of(v) for v in values])]


def chosen_words(e: Emitter, numbers: Sequence[Value], words: Sequence[int]) -> list[Value]:
    """`chosen` from 16 integers of 64 bits, without an instruction for it."""
    if e.registers.picks and e.lanes in {EIGHT // 2, EIGHT}:
        together = EIGHT // e.lanes  # vectors that make up eight lanes
        out = []
        for i in range(0, len(numbers), together):
            some = numbers[i : i + together]
            whole = some[0] if together == 1 else e.shuffle(some[0], some[-1], range(EIGHT))
            found = eight_words(e, whole, words)
            out += [found] if together == 1 else [e.half(found, which) for which in range(len(some))]
        return out
    builder = e.builder
    table = cgutils.global_constant(builder, "words", ir.Constant(ir.ArrayType(I64, len(words)), list(words)))
    out = []
    for given in numbers:
        result = ir.Constant(integers(e), ir.Undefined)
        for lane in range(e.lanes):
            where = ir.Constant(I32, lane)
            number = builder.and_(builder.extract_element(given, where), ir.Constant(I64, len(words) - 1))
            value = builder.load(builder.gep(table, [e.index(0), number]))
            result = builder.insert_element(result, value, where)
        out.append(result)
    return out


def eight_words(e: Emitter, numbers: Value, words: Sequence[int]) -> Value:
    """`chosen_words` for eight lanes with AVX2, which picks one of 8 words of 32 bits, in each of 8 places.

    So the lower and the upper halves of the integers are picked apart from one another, for all lanes at once, from the
    first and from the last eight, and put together. The lanes lie as putting them together, within 128 bits, asks.
    """
    builder = e.builder
    floats, places = ir.VectorType(FLOAT, EIGHT), ir.VectorType(I32, EIGHT)
    pieces = builder.bitcast(numbers, ir.VectorType(I32, 2 * EIGHT))
    index = e.shuffle(pieces, pieces, [0, 2, 8, 10, 4, 6, 12, 14])
    last = builder.bitcast(builder.shl(index, ir.Constant(places, [28] * EIGHT)), floats)  # bit 3 as the sign

    def picked(part: list[int]) -> Value:
        if not any(part):
            return ir.Constant(floats, [0.0] * EIGHT)
        tables = [builder.bitcast(ir.Constant(places, part[i : i + EIGHT]), floats) for i in (0, EIGHT)]
        low, high = (e.call("llvm.x86.avx2.permps", floats, [table, index]) for table in tables)
        return e.call("llvm.x86.avx.blendv.ps.256", floats, [low, high, last])

    low, high = (picked([word >> shift & 0xFFFFFFFF for word in words]) for shift in (0, 32))
    both = e.shuffle(low, high, [0, 8, 1, 9, 4, 12, 5, 13, 2, 10, 3, 11, 6, 14, 7, 15])
    return builder.bitcast(both, ir.VectorType(I64, EIGHT))


def logs_and_inverses(e: Emitter, xs: Sequence[Value]) -> list[tuple[Value, Value]]:
    """log(x) within 5 ulp and 1 / x within 2 ulp for normal x > 0 (float64 only), without a division.

    x = 2^n m with m in [0.698, 1.396). With c near 1 / m from a table, r = m c - 1 has no rounding error to speak
    of, log m = log(1 / c) + r + r^2 Q(r), and c (1 - r) (1 + r^2) is 1 / m but for r^4, which one step of Newton's
    method of third order takes away.
    """
    builder, one = e.builder, e.constant(1.0)
    raws = [builder.bitcast(x, integers(e)) for x in xs]
    # n in the exponent's bits, the number of the range below them
    aboves = [builder.sub(raw, every_lane(e, LOG_BEGIN)) for raw in raws]
    numbers = [builder.lshr(above, every_lane(e, 48)) for above in aboves]
    nears, logarithms = chosen(e, numbers, RECIPROCALS), chosen(e, numbers, LOGARITHMS)
    out = []
    for raw, above, c, logarithm in zip(raws, aboves, nears, logarithms, strict=True):
        power = builder.and_(above, every_lane(e, -1 << 52))
        m = builder.bitcast(builder.sub(raw, power), e.vector)
        r = e.fma(m, c, e.constant(-1.0))
        square = e.mul(r, r)
        rest = e.fma(square, e.polynomial(r, LOG_COEFFICIENTS), r)
        log = e.plus(e.fma(exponents(e, above), e.constant(LN2_HIGH[8]), logarithm), rest)
        near = e.minus(one, r)
        y = e.mul(c, e.fma(near, square, near))
        left = e.fma(builder.fneg(m), y, one)
        inverse = builder.bitcast(e.fma(y, e.fma(left, left, left), y), integers(e))
        out.append((log, builder.bitcast(builder.sub(inverse, power), e.vector)))
    return out


def exponents(e: Emitter, bits: Value) -> Value:
    """The upper 12 bits, an integer with a sign, as float64."""
    builder = e.builder
    if e.permutes:
        return builder.sitofp(builder.ashr(bits, every_lane(e, 52)), e.vector)
    # as the last bits of 2^52: the sign's bit, the other way round, stands for 2048 that is taken off again
    shifted = builder.xor(builder.lshr(bits, every_lane(e, 52)), every_lane(e, bits_of(2.0**52) | 2048))
    return e.minus(builder.bitcast(shifted, e.vector), e.constant(2.0**52 + 2048))


def integers(e: Emitter) -> ir.VectorType:
    """Vectors of as many integers of the elements' size."""
    return ir.VectorType(e.integer, e.lanes)


def every_lane(e: Emitter, value: int) -> Value:
    """An integer in all lanes."""
    return ir.Constant(integers(e), [value] * e.lanes)


def bits_of(value: float) -> int:
    """The bits of a float64."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])
