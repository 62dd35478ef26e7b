"""From a density to a `Program`: which kernel serves a factor kind, and how its parameters are packed.

`PROGRAMS` is the table factor kind -> builder; a new kernel is a new row, for triangles a component one of `WAYS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels import layout, matrix_units, near_small
from fastgmm.kernels.diag import diag_block, near_diag_block
from fastgmm.kernels.full import full_block, near_full_block
from fastgmm.kernels.matrix_full import extra_bytes, matrix_full_block, pack_shifts
from fastgmm.kernels.pack import pack_tiles, pack_triangles
from fastgmm.kernels.products import extended_length
from fastgmm.kernels.runner import Program
from fastgmm.kernels.simd import VECTOR_BYTES
from fastgmm.kernels.small import LARGEST, make_block
from fastgmm.kernels.spherical import assign_block, near_spherical_block, spherical_block
from fastgmm.kernels.tied import near_tied_block, scatter_block, tied_block

Float64 = npt.NDArray[np.float64]

CUT = {8: -40.0, 4: -28.0}  # by element size; responsibilities below e^CUT times the component's weight are dropped:
# docs/numerics.md
NEAR = {8: 16.0, 4: 6.0}
"""Distance of a mean from the common centre, in its own standard deviations, up to which sums about that centre do, by
element size. A variance loses the square of it: 2.4 of sixteen digits, 1.6 of seven."""

FEW_PAIRS = 1 << 17
"""Pairs of row and component of a pass whose time does not pay for a look at whether components are near (`QUICK`)."""

PRODUCT_COMPONENTS, PRODUCT_FEATURES = 8, 48
FEW_COMPONENTS, FEW_FEATURES = 4, 16
"""From so many components on, and up to so many features, moments are taken from products that components share: with
fewer components forming the products costs more than it saves, though less so where rows are short, since much of a
component's own triangle is padding then; with more features little of it is."""

UNIT_SHAPES = ((31, 32, 32), (46, 48, 8))
"""From so many and up to so many features, and from so many components on, float32 passes take matrix units instead of
shared products. The units' blocks have 16 features, and steps of two blocks: what fills them up costs as much as more
features, so with fewer than these they are slower."""

WHOLE_TILE_COMPONENTS = 64
"""From so many components on, products of whole vectors of float64 are formed for all rows of a tile at once: they lie
in the second-level cache then, but many components share them, and a component's sums are fetched once a tile."""

MODERATE = 1e-12, 1e12
"""Between these lie the reciprocal spreads of data that matrix units take (`matrix_units.py`): a square of a 2^16th of
the spread is still a number."""

NEVER_CUT = {8: -700.0, 4: -80.0}  # the range of the kernels' exp, by element size


class DensityLike(Protocol):
    """What a program reads of a density (`fastgmm.density.Density`)."""

    @property
    def kind(self) -> str:
        """Factor kind."""
        ...

    @property
    def means(self) -> Float64:
        """(K, D)."""
        ...

    @property
    def factor(self) -> Float64:
        """In the kind's layout."""
        ...

    @property
    def log_norm(self) -> Float64:
        """(K,)."""
        ...

    @property
    def log_weights(self) -> Float64:
        """(K,)."""
        ...


def _start(density: DensityLike, dtype: np.dtype[Any], body: Any, first: int, second: int) -> tuple[Program, float]:
    """A program with what all have in common; and what was subtracted from all log-densities to keep float32 exact."""
    k, d = density.means.shape
    program = Program(body, dtype, k, d, second, first)
    top = 0.0 if dtype == np.float64 else float(density.log_norm.max())
    if not math.isfinite(top):
        top = 0.0
    program.arrays[a.LOG_NORM] = (density.log_norm - top).astype(dtype)
    if top:
        program.arrays[a.TOP] = np.array([top])
    return program, top


def set_cut(program: Program, density: DensityLike, *, drop: bool) -> None:
    """Log of a component's smallest responsibility, relative to the largest of a row, that counts."""
    size = program.dtype.itemsize
    lowest = NEVER_CUT[size]
    cut = np.maximum(CUT[size] + density.log_weights, lowest) if drop else np.full(program.n_components, lowest)
    program.arrays[a.CUT] = cut.astype(program.dtype)


class _Chol(NamedTuple):
    """A triangle a component, and how the components lie: what decides which kernel serves (`WAYS`)."""

    density: DensityLike
    dtype: np.dtype[Any]
    centre: Float64  # (D,)
    shifts: Float64  # (K, D): the distances of the means from the centre, each in its component's standard deviations
    near: bool

    @property
    def few(self) -> bool:
        """Whether `small.py` serves so many features."""
        return self.density.means.shape[1] <= LARGEST

    @property
    def shared(self) -> int:
        """How components near one another share the work on moments; see `arguments.py`."""
        return _shared(*self.density.means.shape)

    @property
    def for_matrix_units(self) -> bool:
        """Whether matrix units are there, are faster, and take such data."""
        k, d = self.density.means.shape
        fills = any(least <= d <= most and k >= components for least, most, components in UNIT_SHAPES)
        pays = self.dtype.itemsize == 4 and (self.shared == a.BY_GRAM or fills)
        return pays and matrix_units.available() and _moderate(self.density.factor)


def _chol(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    centre = common_centre(density)
    shifts = _products(density.factor, density.means - centre)
    case = _Chol(density, dtype, centre, shifts, bool(_squares(shifts).max() <= NEAR[dtype.itemsize] ** 2))
    return next(build for serves, build in WAYS if serves(case))(case)


def _small(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    d = density.means.shape[1]
    program, top = _start(density, dtype, make_block(d), layout.padded_width(d, dtype.itemsize), d * (d + 1) // 2)
    program.arrays[a.FACTORS] = layout.pack_small(density.factor * math.sqrt(0.5), dtype)
    return program, top


def far_small(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    """The program for a triangle a component, up to four features, wherever the components lie."""
    program, top = _small(density, dtype)
    program.arrays[a.MEANS] = layout.split(density.means, dtype, density.means.shape[1])
    return program, top


def _quick_chol(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    return (far_small if density.means.shape[1] <= LARGEST else _chol)(density, dtype)


def _near_small(case: _Chol) -> tuple[Program, float]:
    program, top = _small(case.density, case.dtype)
    _about(program, case.centre)
    program.arrays[a.MEANS] = (case.shifts * -math.sqrt(0.5)).astype(case.dtype)
    program.numbers[a.EXTRA] = near_small.extra_bytes(*case.density.means.shape)
    return program, top


def _full(
    density: DensityLike, dtype: np.dtype[Any], body: Any, factors: npt.NDArray[Any], more: int = 0
) -> tuple[Program, float]:
    """What the ways of full covariances share; `more` numbers follow a component's second moments."""
    d, size = density.means.shape[1], dtype.itemsize
    program, top = _start(density, dtype, body, layout.padded_width(d, size), layout.moment_length(d, size) + more)
    program.arrays[a.FACTORS] = factors
    program.numbers[a.FACTOR_LENGTH] = factors.shape[1]
    return program, top


def _far_full(case: _Chol) -> tuple[Program, float]:
    density, dtype = case.density, case.dtype
    d = density.means.shape[1]
    program, top = _full(density, dtype, full_block, pack_triangles(density.factor, dtype))
    program.arrays[a.MEANS] = layout.split(density.means, dtype, d)
    program.arrays[a.WIDE_MEANS] = layout.split(density.means, dtype, layout.padded_width(d, dtype.itemsize))
    return program, top


def _near_full(case: _Chol) -> tuple[Program, float]:
    density, dtype, shared = case.density, case.dtype, case.shared
    d, size = density.means.shape[1], dtype.itemsize
    lanes = VECTOR_BYTES // size
    n_vectors = layout.product_count(d, lanes) if shared == a.BY_PRODUCTS else 0
    factors = pack_triangles(density.factor, dtype)
    program, top = _full(density, dtype, near_full_block, factors, n_vectors * lanes)
    _about(program, case.centre)
    program.arrays[a.MEANS] = (-case.shifts).astype(dtype)
    program.arrays[a.VECTORS] = layout.product_vectors(d, lanes) if n_vectors else np.empty(0, np.int64)
    place = layout.moment_length(d, size)
    program.numbers.update({a.SHARED: shared, a.PRODUCTS: place, a.N_VECTORS: n_vectors, a.TOPS: 1})
    if n_vectors and size == 8 and program.n_components >= WHOLE_TILE_COMPONENTS and d % lanes == 0:
        program.numbers[a.EXTRA] = a.TILE * extended_length(d, lanes) * size
    return program, top


def _matrix_full(case: _Chol) -> tuple[Program, float]:
    program, top = _full(case.density, case.dtype, matrix_full_block, pack_tiles(case.density.factor))
    _about(program, case.centre)
    program.arrays[a.MEANS] = pack_shifts(-case.shifts)
    program.numbers[a.EXTRA] = extra_bytes(*case.density.means.shape)
    return program, top


WAYS: tuple[tuple[Callable[[_Chol], bool], Callable[[_Chol], tuple[Program, float]]], ...] = (
    (lambda case: case.few and case.near, _near_small),
    (lambda case: case.few, lambda case: far_small(case.density, case.dtype)),
    (lambda case: not case.near, _far_full),
    (lambda case: case.for_matrix_units, _matrix_full),
    (lambda _: True, _near_full),
)
"""Triangles a component: the first way that serves is taken."""


def _diag(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    padded = layout.padded_width(density.means.shape[1], dtype.itemsize)
    centre = common_centre(density)
    scaled = (density.means - centre) * density.factor
    near = np.abs(scaled).max() <= NEAR[dtype.itemsize]
    program, top = _start(density, dtype, near_diag_block if near else diag_block, padded, padded)
    program.arrays[a.FACTORS] = layout.pack_components(density.factor, dtype)
    if near:
        _about(program, centre)
        program.arrays[a.MEANS] = layout.pack_components(-scaled, dtype)
        return program, top
    program.arrays[a.MEANS] = layout.pack_components(density.means, dtype)
    program.arrays[a.WIDE_MEANS] = layout.split(density.means, dtype, padded)
    return program, top


def _scalar(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    padded = layout.padded_width(density.means.shape[1], dtype.itemsize)
    centre = common_centre(density)
    means = density.means - centre
    squares = _squares(means * density.factor[:, None])
    if not squares.max() <= NEAR[dtype.itemsize] ** 2:
        return _far_scalar(density, dtype, spherical_block)
    program, top = _start(density, dtype, near_spherical_block, padded, 1)
    _about(program, centre)
    program.arrays[a.MEANS] = layout.pack_components(means, dtype)
    program.arrays[a.FACTORS] = (density.factor**2).astype(dtype)
    program.arrays[a.LOG_NORM] = (density.log_norm - top - 0.5 * squares).astype(dtype)
    return program, top


def assignment(density: DensityLike, dtype: np.dtype[Any]) -> Program:
    """The program of k-means: which of equal spheres is the nearest, for modes ASSIGN and PREDICT."""
    return _far_scalar(density, dtype, assign_block)[0]


def _far_scalar(density: DensityLike, dtype: np.dtype[Any], body: Any) -> tuple[Program, float]:
    """The program for a scale a component wherever the components lie."""
    padded = layout.padded_width(density.means.shape[1], dtype.itemsize)
    program, top = _start(density, dtype, body, padded, 1)
    program.numbers[a.WHITE] = 1
    program.arrays[a.MEANS] = layout.pack_components(density.means, dtype)
    program.arrays[a.FACTORS] = density.factor.astype(dtype)
    program.arrays[a.WIDE_MEANS] = layout.split(common_centre(density), dtype, padded)
    return program, top


def _shared_chol(density: DensityLike, dtype: np.dtype[Any]) -> tuple[Program, float]:
    k, d = density.means.shape
    padded = layout.padded_width(d, dtype.itemsize)
    centre = common_centre(density)
    means = (density.means - centre) @ density.factor.T
    squares = _squares(means)
    near = squares.max() <= NEAR[dtype.itemsize] ** 2
    program, top = _start(density, dtype, near_tied_block if near else tied_block, padded, 0)
    _about(program, centre)
    program.arrays[a.ORIGIN] = np.zeros(2 * d, dtype)
    program.arrays[a.FACTORS] = layout.pack_triangles(density.factor[None], dtype)
    program.arrays[a.SCALES] = np.ones(k, dtype)
    if near:
        program.arrays[a.MEANS] = layout.pack_components(means @ density.factor, dtype)
        program.arrays[a.LOG_NORM] = (density.log_norm - top - 0.5 * squares).astype(dtype)
    else:
        program.arrays[a.MEANS] = layout.pack_components(means, dtype)
        program.numbers[a.WHITE] = 1
    return program, top


def _about(program: Program, centre: Float64) -> None:
    """Let the pass take rows, and sums, about one centre."""
    program.centre = centre
    padded = layout.padded_width(program.n_features, program.dtype.itemsize)
    program.arrays[a.COMMON] = layout.split(centre, program.dtype, padded)


def _shared(k: int, d: int) -> int:
    """How components near one another share the work on moments; see `arguments.py`."""
    if d > PRODUCT_FEATURES:
        return a.BY_GRAM
    return a.BY_PRODUCTS if k >= (FEW_COMPONENTS if d <= FEW_FEATURES else PRODUCT_COMPONENTS) else 0


def _moderate(factors: Float64) -> bool:
    """Whether the components' spread, given the features before, is far from what matrix units take for zero."""
    scales = np.abs(np.diagonal(factors, axis1=1, axis2=2))
    return bool(scales.min() > MODERATE[0] and scales.max() < MODERATE[1])


def _products(factors: Float64, vectors: Float64) -> Float64:
    """W_k v_k for every component, (K, D)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.matmul(factors, vectors[:, :, None])[:, :, 0])


def _squares(values: Float64) -> Float64:
    with np.errstate(over="ignore"):
        return np.asarray(np.einsum("ij,ij->i", values, values))


def common_centre(density: DensityLike) -> Float64:
    """A point amid the components: their weighted mean, taken about the first so that an offset costs no digits."""
    weights = np.exp(density.log_weights)
    total = float(weights.sum())
    anchor = density.means[0]
    return np.asarray(anchor + (weights / total if total > 0.0 else weights) @ (density.means - anchor))


PROGRAMS: dict[str, Callable[[DensityLike, np.dtype[Any]], tuple[Program, float]]] = {
    "chol": _chol,
    "shared_chol": _shared_chol,
    "diag": _diag,
    "scalar": _scalar,
}


QUICK = {"chol": _quick_chol}
"""The builders of PROGRAMS that have a quicker one for passes of few rows, which takes the plain way."""


def program_of(density: DensityLike, dtype: np.dtype[Any], n_rows: int | None = None) -> tuple[Program, float]:
    """The program for a density, and what was subtracted from all log-densities.

    Parameters
    ----------
    density : DensityLike
        Its kind is a key of `PROGRAMS`.
    dtype : numpy.dtype
        Of the rows.
    n_rows : int, optional
        Rows of the whole pass, where its results need not be those of passes over other rows to the last bit.
    """
    builder = PROGRAMS[density.kind]
    if n_rows is not None and n_rows * density.means.shape[0] <= FEW_PAIRS:
        builder = QUICK.get(density.kind, builder)
    return builder(density, dtype)


def scatter_program(centre: Float64, dtype: np.dtype[Any]) -> Program:
    """The program that sums all rows' moments about one point."""
    d, size = centre.shape[0], dtype.itemsize
    padded = layout.padded_width(d, size)
    program = Program(scatter_block, dtype, 1, d, layout.moment_length(d, size), padded)
    program.arrays[a.WIDE_MEANS] = layout.split(centre, dtype, padded)
    return program


BODIES: dict[str, Any] = {
    "full": full_block,
    "diag": diag_block,
    "near diag": near_diag_block,
    "spherical": spherical_block,
    "assign": assign_block,
    "near spherical": near_spherical_block,
    "tied": tied_block,
    "near full": near_full_block,
    "matrix full": matrix_full_block,
    "near tied": near_tied_block,
    "scatter": scatter_block,
    "small": make_block,  # of the number of features
}
"""Names of the bodies of programs: how another process finds one."""


def body_of(name: str, n_features: int) -> Any:
    """The body of that name."""
    if name == "matrix full" and not matrix_units.available():
        msg = (
            "this process has no matrix units (AMX), but the pass it was sent is for such: set the environment "
            f"variable {matrix_units.SWITCH}=0 where the fit runs, so that it does without"
        )
        raise RuntimeError(msg)
    return make_block(n_features) if name == "small" else BODIES[name]


def name_of(program: Program) -> str:
    """The name of a program's body."""
    for name in BODIES:
        if name != "small" and BODIES[name] is program.body:
            return name
    if program.body is make_block(program.n_features):
        return "small"
    msg = f"{program.body} has no name: put it into BODIES"
    raise LookupError(msg)
