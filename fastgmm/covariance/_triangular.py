"""Dense linear algebra on stacks of small symmetric matrices, for the families that have off-diagonal entries.

Why it is like this

1. Up to `_WHOLE` features: `numpy.linalg.cholesky` walks a stack in C but takes about 14 microseconds to begin, and
   SciPy's LAPACK wrappers cost about half a microsecond a call. So up to `_FEW` matrices are factorised one by one.
   Together they beat recursions vectorised over K at every size measured (K = 3..128, D = 2..64).
2. Above: the same in blocks of `_BLOCK`, with matrix products over the whole stack. No single BLAS call is then large
   enough for OpenBLAS to start its threads: it does so beyond 64^3 multiplications, and that of NumPy 1.26 even to
   factorise a 64 x 64 matrix. That matters twice: NumPy's and SciPy's OpenBLAS are two pools whose spinning threads
   fight each other and the kernels' threads (K = 8, D = 256 on two busy cores: 5 ms in blocks, 120 to 700 ms with
   threads, 9 ms with one thread); and the bits do not depend on the number of BLAS threads.
3. Blocks are solved with the inverses of diagonal blocks plus one step of refinement, which keeps the small backward
   error of substitution; inverses alone would lose half the digits of an ill-conditioned covariance.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from fastgmm.constants import FLOOR_GROWTH, PIVOT_TOLERANCE, SYMMETRY_RTOL
from fastgmm.covariance.base import singular
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.pieces import pieces, piecewise
from fastgmm.typing import Float64Array

_WHOLE = 63
"""Features up to which LAPACK is called on whole matrices."""

_BLOCK = 48
"""Size of a block above."""

_FEW = 12
"""Matrices up to which one call of LAPACK each costs less than `numpy.linalg.cholesky` does."""


def cholesky(name: str, matrices: Float64Array, *, shared: bool = False) -> Float64Array:
    """Lower Cholesky factors of a stack (K, D, D).

    Raises
    ------
    SingularCovarianceError
        If a matrix is not positive definite, not finite, or so nearly singular that a pivot is mere rounding error.
    """
    try:
        lower = _cholesky(matrices)
    except np.linalg.LinAlgError:
        raise _first_singular(name, matrices, shared=shared) from None
    if not _pivots_resolved(lower, matrices):
        raise _first_singular(name, matrices, shared=shared)
    return lower


def _pivots_resolved(lower: Float64Array, matrices: Float64Array) -> bool:
    """Whether each pivot stands out from the rounding of its diagonal entry; False for NaN and infinities."""
    pivots = lower.diagonal(0, -2, -1)
    # Square roots on both sides: variances of 1e-300 times a tolerance would fall into the denormals.
    limit = math.sqrt(PIVOT_TOLERANCE * matrices.shape[-1]) * np.sqrt(matrices.diagonal(0, -2, -1))
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
    # A copy: of strided numbers NumPy 1.26 takes one of two logarithms, by where the result happens to lie in memory.
    log_det = -np.log(lower.diagonal(0, 1, 2).copy()).sum(axis=1)
    for some in pieces(lower):
        _invert_lower(lower[some])
    return lower, log_det


def _cholesky(matrices: Float64Array) -> Float64Array:
    """Lower Cholesky factors of a stack (K, D, D), zero above the diagonal; raises `numpy.linalg.LinAlgError`."""
    n = matrices.shape[-1]
    if n <= _WHOLE:
        return _each_cholesky(matrices) if len(matrices) <= _FEW else piecewise(np.linalg.cholesky, matrices)
    with np.errstate(invalid="ignore", over="ignore"):  # of matrices that are not finite; `cholesky` refuses the result
        return piecewise(_blocked_cholesky, matrices)


def _each_cholesky(matrices: Float64Array) -> Float64Array:
    lower = np.empty(matrices.shape)
    for matrix, out in zip(matrices, lower, strict=True):
        # What is lower in C order is upper in Fortran's: no copy on the way to LAPACK but the one it works on.
        factor, info = dpotrf(matrix.T, lower=0, clean=1)
        if info:
            msg = "a matrix is not positive definite"
            raise np.linalg.LinAlgError(msg)
        out[:] = factor.T
    return lower


def _blocked_cholesky(matrices: Float64Array) -> Float64Array:
    n = matrices.shape[-1]
    lower = np.zeros(matrices.shape)
    spans = [slice(i, min(i + _BLOCK, n)) for i in range(0, n, _BLOCK)]
    inverses: list[Float64Array] = []
    for i, rows in enumerate(spans):
        for p, columns in enumerate(spans[:i]):
            # L_ip L_pp' = A_ip - sum over q < p of L_iq L_pq'
            rest = matrices[:, rows, columns].copy()
            for q in spans[:p]:
                rest -= np.matmul(lower[:, rows, q], _t(lower[:, columns, q]))
            solution = np.matmul(rest, _t(inverses[p]))
            rest -= np.matmul(solution, _t(lower[:, columns, columns]))
            solution += np.matmul(rest, _t(inverses[p]))
            lower[:, rows, columns] = solution
        corner = matrices[:, rows, rows].copy()
        for q in spans[:i]:
            corner -= np.matmul(lower[:, rows, q], _t(lower[:, rows, q]))
        corner = cast("Float64Array", np.linalg.cholesky(corner))
        lower[:, rows, rows] = corner
        _invert_lower(corner)
        inverses.append(corner)
    return lower


def _invert_lower(lower: Float64Array) -> None:
    """Invert a C-contiguous stack (K, D, D) of lower triangular matrices in place."""
    n = lower.shape[-1]
    if n <= _WHOLE:
        for matrix in lower:
            # A C-ordered lower triangle is a Fortran-ordered upper one: LAPACK inverts it where it lies.
            dtrtri(matrix.T, lower=0, overwrite_c=1)
        return
    spans = [slice(i, min(i + _BLOCK, n)) for i in range(0, n, _BLOCK)]
    for i, rows in enumerate(spans):
        corner = lower[:, rows, rows].copy()
        _invert_lower(corner)
        old = lower[:, rows, : rows.start].copy()
        for j, columns in enumerate(spans[:i]):
            # W_ij = -W_ii sum over j <= p < i of L_ip W_pj
            total = np.matmul(old[:, :, columns], lower[:, columns, columns])
            for p in spans[j + 1 : i]:
                total += np.matmul(old[:, :, p], lower[:, p, columns])
            lower[:, rows, columns] = -np.matmul(corner, total)
        lower[:, rows, rows] = corner


def _t(matrices: Float64Array) -> Float64Array:
    """Transpose each matrix of a stack (a view)."""
    return matrices.transpose(0, 2, 1)


def is_definite(matrix: Float64Array) -> bool:
    """Whether one matrix (D, D) is positive definite to working precision."""
    return _all_definite(matrix[None])


def exceeds(matrix: Float64Array, level: float) -> bool:
    """Whether all eigenvalues of a symmetric matrix (D, D) are above `level`; costs a factorisation, no eigenvalues."""
    shifted = matrix.copy()
    shifted.reshape(-1)[:: matrix.shape[0] + 1] -= level
    try:
        lower = _cholesky(shifted[None])
    except np.linalg.LinAlgError:
        return False
    return bool((lower.diagonal(0, 1, 2) > 0.0).all())  # not NaN


def _all_definite(matrices: Float64Array) -> bool:
    try:
        lower = _cholesky(matrices)
    except np.linalg.LinAlgError:
        return False
    with np.errstate(invalid="ignore"):
        return _pivots_resolved(lower, matrices)


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
        with np.errstate(over="ignore"):
            levels = levels * FLOOR_GROWTH
        if not np.isfinite(levels).all():  # cannot happen for finite entries below 1e307; never loop for ever
            return np.eye(matrix.shape[0])


def _all_symmetric(matrices: Float64Array) -> bool:
    size = np.abs(matrices).max(axis=(1, 2))
    return bool((np.abs(matrices - _t(matrices)).max(axis=(1, 2)) <= SYMMETRY_RTOL * size).all())


def check_definite(name: str, what: str, matrices: Float64Array, *, shared: bool = False) -> None:
    """Raise `InvalidParameterError` unless all matrices of a stack (K, D, D) are symmetric and positive definite."""
    if all(_all_symmetric(matrices[some]) for some in pieces(matrices)) and _all_definite(matrices):
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
    if all(_all_symmetric(matrices[some]) for some in pieces(matrices)):
        try:
            return inverse(name, matrices)
        except SingularCovarianceError:
            pass  # and the check says it in the user's words
    check_definite(name, what, matrices)
    return inverse(name, matrices)


def inverse(name: str, matrices: Float64Array) -> Float64Array:
    """Inverses of a stack (K, D, D) of symmetric positive definite matrices, exactly symmetric."""
    factor, _ = inverse_cholesky(name, matrices)
    result: Float64Array = piecewise(lambda lower: symmetrized(np.matmul(_t(lower), lower)), factor)
    return result


def symmetrized(matrices: Float64Array) -> Float64Array:
    """Return (A + A') / 2 of a stack (K, D, D)."""
    result: Float64Array = matrices + matrices.transpose(0, 2, 1)
    result *= 0.5
    return result
