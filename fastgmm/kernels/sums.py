"""From the folded sums of a pass to moments: where they lie in a slot, and what they mean for a scatter kind.

`MOMENTS` is the table (factor kind, scatter kind) -> (reference (K, D), s0, s1 about it, s2 about it). A row in it says
that a kernel's sums suffice for a kind of scatter, however they are packed. Where there are many numbers s2 is a
function of weights (K,) and shifts (K, D), which returns the moments less the weighted squares of the shifts: then the
numbers are taken into the hand once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels import layout
from fastgmm.kernels.each import FROM
from fastgmm.kernels.programs import DensityLike, common_centre
from fastgmm.kernels.runner import Program
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.small import LARGEST
from fastgmm.kernels.unpack import unpack_moments

Float64 = npt.NDArray[np.float64]
Arrays = tuple[Float64, Float64, Float64, Float64]
Moments = tuple[Float64, Float64, Float64, Float64 | Callable[[Float64, Float64], Float64]]


def zeroth_and_first(program: Program, total: Float64) -> tuple[Float64, Float64]:
    """Weights (K,), a view, and first moments (K, D)."""
    k, d = program.n_components, program.n_features
    first = total[program.first : program.first + k * program.first_length].reshape(k, program.first_length)
    return total[a.WEIGHT : a.WEIGHT + k], np.ascontiguousarray(first[:, :d])


def second(program: Program, total: Float64) -> Float64:
    """Second moments as the kernel packs them, (K, moment_length), a view."""
    k = program.n_components
    return total[program.second : program.second + k * program.moment_length].reshape(k, program.moment_length)


def _full(program: Program, total: Float64, density: DensityLike) -> Moments:
    d, numbers = program.n_features, program.n_components * program.n_features**2
    if d <= LARGEST or numbers < FROM or program.numbers.get(a.SHARED) == a.BY_PRODUCTS:
        return _full_arrays(program, total, density)
    s0, s1 = zeroth_and_first(program, total)
    s2 = functools.partial(unpack_moments, second(program, total), d, program.dtype.itemsize)
    return _reference(program, density), s0, s1, s2


def _full_arrays(program: Program, total: Float64, density: DensityLike) -> Arrays:
    s0, s1 = zeroth_and_first(program, total)
    packed, d = second(program, total), program.n_features
    if d <= LARGEST:
        return _reference(program, density), s0, s1, layout.unpack_small(packed, d)
    size = program.dtype.itemsize
    s2 = unpack_moments(packed, d, size)
    if program.numbers.get(a.SHARED) == a.BY_PRODUCTS:
        packed = packed[:, program.numbers[a.PRODUCTS] :]
        first, products = layout.unpack_products(packed, d, VECTOR_BYTES // size)
        s1 += first
        s2 += products
    return _reference(program, density), s0, s1, s2


def _full_to_pooled(program: Program, total: Float64, density: DensityLike) -> Moments:
    reference, s0, s1, s2 = _full_arrays(program, total, density)
    return reference, s0, s1, s2.sum(axis=0)


def _reference(program: Program, density: DensityLike) -> Float64:
    if program.centre is None:
        return density.means
    points = np.empty(density.means.shape)  # NumPy's broadcast_to takes longer, and this runs once an iteration
    points[:] = program.centre
    return points


def _diag(program: Program, total: Float64, density: DensityLike) -> Arrays:
    s0, s1 = zeroth_and_first(program, total)
    return _reference(program, density), s0, s1, np.array(second(program, total)[:, : program.n_features])


def _trace(program: Program, total: Float64, density: DensityLike) -> Moments:
    s0, s1 = zeroth_and_first(program, total)
    if program.centre is not None:
        return _reference(program, density), s0, s1, -2.0 * second(program, total)[:, 0]  # `near.square_norms`
    s1 -= s0[:, None] * (density.means - common_centre(density))
    return density.means, s0, s1, np.array(second(program, total)[:, 0])


def _diag_to_trace(program: Program, total: Float64, density: DensityLike) -> Moments:
    reference, s0, s1, s2 = _diag(program, total, density)
    return reference, s0, s1, s2.sum(axis=1)


MOMENTS: dict[tuple[str, str], Callable[[Program, Float64, DensityLike], Moments]] = {
    ("chol", "full"): _full,
    ("chol", "pooled"): _full_to_pooled,
    ("diag", "diag"): _diag,
    ("diag", "trace"): _diag_to_trace,
    ("scalar", "trace"): _trace,
}
"""(factor kind, scatter kind) -> meaning of a kernel's sums."""
