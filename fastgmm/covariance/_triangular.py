"""Dense linear algebra on stacks of small symmetric matrices, for the families that have off-diagonal entries.

All of it rests on one kernel, `fastgmm.kernels.factors`, and not on LAPACK, for three reasons: a call of LAPACK's costs
as much as three matrices of a model search; OpenBLAS, NumPy's and SciPy's, starts threads that spin beside the kernels'
own and whose number changes the bits; and what is definite here is so everywhere, alone or in a stack.
"""

from __future__ import annotations

import math

import numpy as np

from fastgmm.constants import FLOOR_GROWTH, PIVOT_TOLERANCE, SYMMETRY_RTOL
from fastgmm.covariance.base import singular
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.kernels.factors import eliminate, inverses_of
from fastgmm.pieces import piecewise
from fastgmm.typing import Array, Float64Array

TILE, TILE_NUMBERS = 64, 1 << 15
"""Rows and columns of a matrix, and numbers of a stack of such tiles, that are compared with their mirror image."""


def cholesky(name: str, matrices: Float64Array, *, shared: bool = False) -> Float64Array:
    """Lower Cholesky factors of a stack (K, D, D).

    Raises
    ------
    SingularCovarianceError
        If a matrix is not positive definite, not finite, or so nearly singular that a pivot is mere rounding error.
    """
    both = _eliminated(name, matrices, shared=shared, upper=True)
    d = matrices.shape[-1]
    lower = piecewise(lambda some: np.triu(some, 1).transpose(0, 2, 1).copy(), both)
    lower.reshape(-1, d * d)[:, :: d + 1] = 1.0 / both.diagonal(0, 1, 2)
    return lower


def inverse_cholesky(name: str, matrices: Float64Array, *, shared: bool = False) -> tuple[Float64Array, Float64Array]:
    """Inverses W of the lower Cholesky factors of a stack (K, D, D), and log det W (K,).

    One array of the stack's size is allocated. Entries above the diagonals are zero.

    Raises
    ------
    SingularCovarianceError
        As `cholesky`.
    """
    factor = _eliminated(name, matrices, shared=shared)
    # A copy: of strided numbers NumPy 1.26 takes one of two logarithms, by where the result happens to lie in memory.
    return factor, np.add.reduce(np.log(factor.diagonal(0, 1, 2).copy()), axis=1)


def _eliminated(name: str, matrices: Float64Array, *, shared: bool, **what: bool) -> Float64Array:
    """Return what `eliminate` does; raise for the first matrix that fails."""
    result, failed = eliminate(matrices, _least(matrices), **what)
    if np.maximum.reduce(failed) >= 0:
        k = int((failed >= 0).argmax())
        min_eig = float(np.linalg.eigvalsh(matrices[k])[0]) if np.isfinite(matrices[k]).all() else math.nan
        raise singular(name, None if shared else k, min_eig)
    return result


def _least(matrices: Float64Array) -> float:
    """How far the root of a pivot must stand out from the rounding of that of its diagonal entry."""
    return math.sqrt(PIVOT_TOLERANCE * matrices.shape[-1])


def _t(matrices: Float64Array) -> Float64Array:
    """Transpose each matrix of a stack (a view)."""
    return matrices.transpose(0, 2, 1)


def is_definite(matrix: Float64Array) -> bool:
    """Whether one matrix (D, D) is positive definite to working precision."""
    return bool(_definite(matrix[None])[0])


def exceeds(matrix: Float64Array, level: float) -> bool:
    """Whether all eigenvalues of a symmetric matrix (D, D) are above `level`; costs a factorisation, no eigenvalues."""
    shifted = matrix.copy()
    shifted.reshape(-1)[:: matrix.shape[0] + 1] -= level
    return bool(eliminate(shifted[None], 0.0)[1][0] < 0)


def _definite(matrices: Float64Array) -> Array:
    """Mask (K,) of the matrices that are positive definite to working precision."""
    return np.asarray(eliminate(matrices, _least(matrices))[1] < 0)


def lift(matrix: Float64Array, levels: Float64Array) -> Float64Array:
    """Return a matrix (D, D) with its diagonal raised by `levels` (D,), ten times more until it is positive definite.

    A matrix that is not finite is replaced by the levels alone: nothing in it can be saved.
    """
    base = matrix if np.isfinite(matrix).all() else np.zeros(matrix.shape)
    while True:
        lifted: Float64Array = base + np.diag(levels)
        if is_definite(lifted):
            return lifted
        with np.errstate(over="ignore"):
            levels = levels * FLOOR_GROWTH
        if not np.isfinite(levels).all():  # cannot happen for finite entries below 1e307; never loop for ever
            return np.eye(matrix.shape[0])


def _all_symmetric(matrices: Float64Array) -> bool:
    """Whether all of a stack (K, D, D) are symmetric; tile by tile, for a temporary array costs more than the check."""
    k, d, _ = matrices.shape
    if matrices.size <= TILE_NUMBERS:
        size = np.abs(matrices).max(axis=(1, 2))
        return bool((np.abs(matrices - _t(matrices)).max(axis=(1, 2)) <= SYMMETRY_RTOL * size).all())
    some = max(1, TILE_NUMBERS // min(d, TILE) ** 2)
    for first in range(0, k, some):
        part = matrices[first : first + some]
        flat = part.reshape(part.shape[0], -1)
        limit = SYMMETRY_RTOL * np.maximum(flat.max(axis=1), -flat.min(axis=1))
        for i in range(0, d, TILE):
            for j in range(i, d, TILE):
                difference = part[:, i : i + TILE, j : j + TILE] - _t(part[:, j : j + TILE, i : i + TILE])
                np.abs(difference, out=difference)
                if not (difference.max(axis=(1, 2)) <= limit).all():
                    return False
    return True


def check_definite(name: str, what: str, matrices: Float64Array, *, shared: bool = False) -> None:
    """Raise `InvalidParameterError` unless all matrices of a stack (K, D, D) are symmetric and positive definite."""
    if _all_symmetric(matrices) and _definite(matrices).all():
        return
    for k, matrix in enumerate(matrices):
        which = what if shared else f"{what}[{k}]"
        if np.abs(matrix - matrix.T).max() > SYMMETRY_RTOL * np.abs(matrix).max():
            msg = f"{which} of covariance_type={name!r} must be symmetric; use (A + A.T) / 2 if it nearly is"
            raise InvalidParameterError(msg)
        if not is_definite(matrix):
            msg = (
                f"{which} of covariance_type={name!r} must be positive definite; "
                f"its smallest eigenvalue is {np.linalg.eigvalsh(matrix)[0]:.3g}"
            )
            raise InvalidParameterError(msg)


def checked_inverse(name: str, what: str, matrices: Float64Array) -> Float64Array:
    """Return the `inverse` of what `check_definite` accepts; sound matrices are factorised once."""
    if _all_symmetric(matrices):
        try:
            return inverse(name, matrices)
        except SingularCovarianceError:
            pass  # and the check says it in the user's words
    check_definite(name, what, matrices)
    return inverse(name, matrices)


def inverse(name: str, matrices: Float64Array) -> Float64Array:
    """Inverses of a stack (K, D, D) of symmetric positive definite matrices, exactly symmetric."""
    factor = _eliminated(name, matrices, shared=False, padded=True)
    return inverses_of(factor)
