"""The rows of the table of degenerate input: how to make the data, and how a fit must end."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from tests import reference

KINDS = reference.TYPES
DTYPES = ("float64", "float32")
METHODS = ("fit", "score", "score_samples", "predict", "predict_proba", "sample")
CENTERS = np.array([[0.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 8.0, 0.0]])
DATA, COMPONENT = "DegenerateDataWarning", "DegenerateComponentWarning"
CONVERGENCE = "ConvergenceWarning"
TENSORS = ("full", "tied")  # families with covariances between features
OWN = ("full", "diag", "spherical")  # families whose components can be flat one by one


def clusters(n=60, seed=0):
    """Three clusters in three dimensions; 20 binary digits each, so that shifts by integers lose none in float64."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(c, 1.0, (n, 3)) for c in CENTERS])
    return np.round(x * 2.0**20) / 2.0**20


X = clusters()


@dataclass(frozen=True)
class Row:
    """One kind of input.

    `make` gives the data for a precision. `expect` says how a fit must end, as names of warnings or of one error, by
    covariance type and precision. `shift` and `scale` lead from the harmless version to this one. `query` holds the
    rows that the other methods get, if not the data themselves; `methods` is how these end.
    """

    name: str
    make: Callable[[str], Any]
    expect: Callable[[str, str], tuple[str, ...]] = lambda kind, dtype: ()
    shift: float = 0.0
    scale: float = 1.0
    n_components: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    query: Callable[[str], Any] | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    dtypes: tuple[str, ...] = DTYPES
    far: bool = False  # the other methods get rows so far out that no density is representable


def always(*names):
    return lambda kind, dtype: names


def only(kinds, *names):
    """For some covariance types."""
    return lambda kind, dtype: names if kind in kinds else ()


def held_up(kind, dtype):
    """Only reg_covar keeps a covariance from being flat; the noise of float32 is a part of it, and EM never settles."""
    return (CONVERGENCE,) if kind == "full" and dtype == "float32" else ()


def collinear(kind, dtype):
    return (COMPONENT, *held_up(kind, dtype)) if kind in TENSORS else ()


def few_rows(kind, dtype):
    if kind == "tied" and dtype == "float32":
        return DATA, CONVERGENCE
    return (DATA, *held_up(kind, dtype)) if kind in TENSORS else (COMPONENT,)


def refused(name):
    """By every method that is given the data."""
    return dict.fromkeys(METHODS[1:-1], name)


def plain(change=lambda x: x):
    """Make data by changing the three clusters."""

    def make(dtype):
        with np.errstate(over="ignore"):
            return change(X).astype(dtype)

    return make


def with_value(value):
    def change(x):
        x = x.copy()
        x[7, 1] = value
        return x

    return plain(change)


def constant_column(x):
    return np.column_stack([x[:, :2], np.full(len(x), 7.25)])


def collinear_column(x):
    return np.column_stack([x[:, :2], 2.0 * x[:, 0] - x[:, 1]])


def memmap(dtype):
    """Written to a file that is gone when the array is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, X.astype(dtype))
        return np.load(path, mmap_mode="r")


def read_only(dtype):
    x = X.astype(dtype)
    x.setflags(write=False)
    return x


def unaligned(dtype):
    x = X.astype(dtype)
    return np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)


def fewer_rows_than_features(dtype):
    return np.random.default_rng(1).normal(size=(6, 10)).astype(dtype)


def duplicated(x):
    return np.concatenate([x, np.full((30, 3), 30.0)])


ROWS = (
    Row("three clusters", plain()),
    Row("all rows identical", plain(lambda x: np.full((50, 3), 3.75)), always(DATA, COMPONENT)),
    Row("2 distinct points", plain(lambda x: np.repeat([[0.0, 1, 2], [3, 4, 5]], 20, axis=0)), always(COMPONENT)),
    Row("constant column", plain(constant_column), always(DATA)),
    Row("collinear columns", plain(collinear_column), collinear),
    Row("N < K", plain(lambda x: x[:2]), always("InvalidDataError")),
    Row("one row", plain(lambda x: x[:1]), always("InvalidDataError"), n_components=1),
    Row("no rows", plain(lambda x: x[:0]), always("InvalidDataError"), methods=refused("InvalidDataError")),
    Row("no features", plain(lambda x: x[:, :0]), always("InvalidDataError"), methods=refused("InvalidDataError")),
    Row("one dimension", plain(lambda x: x[:, 0]), always("InvalidDataError"), methods=refused("InvalidDataError")),
    Row("N < D", fewer_rows_than_features, few_rows, n_components=2),
    Row("offset 1e8", plain(lambda x: x + 1e8), shift=1e8, dtypes=("float64",)),
    Row("offset 1e7", plain(lambda x: x + 1e7), shift=1e7),
    Row("offset 1e3", plain(lambda x: x + 1e3), shift=1e3),
    Row("scale 1e-8", plain(lambda x: x * 1e-8), always(DATA), scale=1e-8),
    Row("scale 1e8", plain(lambda x: x * 1e8), scale=1e8),
    Row("scale 1e15", plain(lambda x: x * 1e15), scale=1e15),
    Row("scale 1e30", plain(lambda x: x * 1e30), scale=1e30),
    Row("scale 1e-30", plain(lambda x: x * 1e-30), always(DATA), scale=1e-30),
    Row("scale 1e150", plain(lambda x: x * 1e150), scale=1e150, dtypes=("float64",)),
    Row(
        "scale 1e160",
        plain(lambda x: x * 1e160),
        always("InvalidDataError"),
        methods={"score": "InvalidDataError"},
        far=True,
        dtypes=("float64",),
    ),
    Row("scale 1e-150", plain(lambda x: x * 1e-150), always(DATA), scale=1e-150, dtypes=("float64",)),
    Row("scale 1e-160", plain(lambda x: x * 1e-160), always("InvalidDataError"), dtypes=("float64",)),
    Row(
        "outlier 1e6", plain(lambda x: np.concatenate([x, np.full((1, 3), 1e6)])), only(OWN, COMPONENT), n_components=4
    ),
    Row(
        "outlier 1e12",
        plain(lambda x: np.concatenate([x, np.full((1, 3), 1e12)])),
        only(OWN, COMPONENT),
        n_components=4,
    ),
    Row("duplicates", plain(duplicated), only(OWN, COMPONENT), n_components=4),
    Row("duplicates, reg_covar=0", plain(duplicated), only(OWN, COMPONENT), n_components=4, options={"reg_covar": 0.0}),
    Row(
        "query at 1e200",
        plain(),
        query=lambda dtype: np.array([[1e200, 0, 0], [1e160, -1e200, 3]]),
        methods={"score": "InvalidDataError"},
        far=True,
    ),
    Row("NaN", with_value(np.nan), always("NonFiniteDataError"), methods=refused("NonFiniteDataError")),
    Row("infinity", with_value(np.inf), always("NonFiniteDataError"), methods=refused("NonFiniteDataError")),
    Row("-infinity", with_value(-np.inf), always("NonFiniteDataError"), methods=refused("NonFiniteDataError")),
    Row("float16", lambda dtype: X.astype(np.float16), dtypes=("float64",)),
    Row("longdouble", lambda dtype: X.astype(np.longdouble), dtypes=("float64",)),
    Row("integers", lambda dtype: np.round(X * 100).astype(np.int32), dtypes=("float64",)),
    Row(
        "booleans",
        lambda dtype: X > X.mean(axis=0),
        only(("full", "tied", "diag"), COMPONENT),
        dtypes=("float64",),
        n_components=2,
    ),
    Row("objects", lambda dtype: X.astype(object), dtypes=("float64",)),
    Row("nested lists", lambda dtype: X.tolist(), dtypes=("float64",)),
    Row("Fortran order", lambda dtype: np.asfortranarray(X.astype(dtype))),
    Row("strided", lambda dtype: np.repeat(X.astype(dtype), 2, axis=0)[::2]),
    Row("backwards", lambda dtype: X.astype(dtype)[::-1]),
    Row("read-only", read_only),
    Row("memory map", memmap),
    Row("big-endian", lambda dtype: X.astype(np.dtype(dtype).newbyteorder(">"))),
    Row("unaligned", unaligned),
    Row("complex", lambda dtype: X.astype(complex), always("InvalidDataError"), methods=refused("InvalidDataError")),
    Row(
        "sparse",
        lambda dtype: scipy.sparse.csr_matrix(X.astype(dtype)),
        always("InvalidDataTypeError"),
        methods=refused("InvalidDataTypeError"),
    ),
    Row(
        "masked",
        lambda dtype: np.ma.masked_greater(X.astype(dtype), 8.0),
        always("InvalidDataTypeError"),
        methods=refused("InvalidDataTypeError"),
    ),
    Row(
        "text",
        lambda dtype: X.astype(str).astype(object) + "x",
        always("InvalidDataError"),
        methods=refused("InvalidDataError"),
    ),
)
