"""Dense linear algebra on stacks of small symmetric matrices, for the families that have off-diagonal entries.

`numpy.linalg.cholesky` walks a stack in C; SciPy's LAPACK wrappers cost about half a microsecond a call. Together they
beat recursions vectorised over K at every size measured (K = 3..128, D = 2..256). LAPACK may round differently with
another number of BLAS threads; kernels and their results are not concerned, their inputs may differ by an ulp.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from scipy.linalg.lapack import dtrtri

from fastgmm.constants import FLOOR_GROWTH, PIVOT_TOLERANCE, SYMMETRY_RTOL
from fastgmm.covariance.base import singular
from fastgmm.errors import InvalidParameterError
from fastgmm.typing import Float64Array


def cholesky(name: str, matrices: Float64Array, *, shared: bool = False) -> Float64Array:
    """Lower Cholesky factors of a stack (K, D, D).

    Raises
    ------
    SingularCovarianceError
        If a matrix is not positive definite, not finite, or so nearly singular that a pivot is mere rounding error.
    """
    try:
        lower = cast("Float64Array", np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError:
        raise _first_singular(name, matrices, shared=shared) from None
    if not _pivots_resolved(lower, matrices):
        raise _first_singular(name, matrices, shared=shared)
    return lower


def _pivots_resolved(lower: Float64Array, matrices: Float64Array) -> bool:
    """Whether each pivot stands out from the rounding of its diagonal entry; False for NaN and infinities."""
    pivots = lower.diagonal(0, -2, -1)
    # Square roots on both sides: variances of 1e-300 times a tolerance would fall into the denormals.
    limit = np.sqrt(PIVOT_TOLERANCE * matrices.shape[-1]) * np.sqrt(matrices.diagonal(0, -2, -1))
    return bool((pivots > limit).all())


def inverse_cholesky(name: str, matrices: Float64Array, *, shared: bool = False) -> tuple[Float64Array, Float64Array]:
    """Inverses W of the lower Cholesky factors of a stack (K, D, D), and log det W (K,).

    One array of the stack's size is allocated. Entries above the diagonals are zero.

    Raises
    ------
    SingularCovarianceError
        As `cholesky`.
    """
    lower = cholesky(name, matrices, shared=shared)
    log_det = -np.log(lower.diagonal(0, 1, 2)).sum(axis=1)
    for k in range(lower.shape[0]):
        # A C-ordered lower triangle is a Fortran-ordered upper one: LAPACK inverts it where it lies.
        dtrtri(lower[k].T, lower=0, overwrite_c=1)
    return lower, log_det


def is_definite(matrix: Float64Array) -> bool:
    """Whether one matrix (D, D) is positive definite to working precision."""
    try:
        lower = cast("Float64Array", np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return False
    with np.errstate(invalid="ignore"):
        return _pivots_resolved(lower, matrix)


def _first_singular(name: str, matrices: Float64Array, *, shared: bool) -> Exception:
    for k, matrix in enumerate(matrices):
        if not is_definite(matrix):
            min_eig = float(np.linalg.eigvalsh(matrix)[0]) if np.isfinite(matrix).all() else float("nan")
            return singular(name, None if shared else k, min_eig)
    # Every matrix passes alone: LAPACK rounded a borderline one the other way in the stack. Blame the narrowest.
    smallest = [float(np.linalg.eigvalsh(matrix)[0] / np.trace(matrix)) for matrix in matrices]
    worst = int(np.argmin(smallest))
    return singular(name, None if shared else worst, smallest[worst])


def lift(matrix: Float64Array, levels: Float64Array) -> Float64Array:
    """Return a matrix (D, D) with its diagonal raised by `levels` (D,), ten times more until it is positive definite.

    A matrix that is not finite is replaced by the levels alone: nothing in it can be saved.
    """
    base = matrix if np.isfinite(matrix).all() else np.zeros(matrix.shape)
    while True:
        lifted: Float64Array = base + np.diag(levels)
        if is_definite(lifted):
            return lifted
        levels = levels * FLOOR_GROWTH
        if not np.isfinite(levels).all():  # cannot happen for finite entries below 1e307; never loop for ever
            return np.eye(matrix.shape[0])


def check_definite(name: str, what: str, matrices: Float64Array, *, shared: bool = False) -> None:
    """Raise `InvalidParameterError` unless all matrices of a stack (K, D, D) are symmetric and positive definite."""
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


def inverse(name: str, matrices: Float64Array) -> Float64Array:
    """Inverses of a stack (K, D, D) of symmetric positive definite matrices, exactly symmetric."""
    factor, _ = inverse_cholesky(name, matrices)
    result: Float64Array = np.matmul(factor.transpose(0, 2, 1), factor)
    return symmetrized(result)


def symmetrized(matrices: Float64Array) -> Float64Array:
    """Return (A + A') / 2 of a stack (K, D, D)."""
    result: Float64Array = matrices + matrices.transpose(0, 2, 1)
    result *= 0.5
    return result
