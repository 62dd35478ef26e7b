"""Everything fastgmm raises or warns with.

Every exception is also the nearest builtin, so ``except ValueError`` keeps working for those who know scikit-learn's
contract. Messages are for people: parameter, what was expected, what came, what to do. Attributes are for programs.
"""

from __future__ import annotations


class FastgmmError(Exception):
    """Base of all exceptions that fastgmm raises on purpose."""


class InvalidParameterError(FastgmmError, ValueError):
    """A constructor or function argument is out of range, of the wrong shape, or contradicts another."""


class InvalidDataError(FastgmmError, ValueError):
    """The rows or their weights cannot be used: wrong shape, too few, not numbers."""


class InvalidDataTypeError(FastgmmError, TypeError):
    """The data are of a kind that is not read here at all, such as a sparse matrix."""


class NonFiniteDataError(InvalidDataError):
    """A row holds NaN or an infinity.

    Attributes
    ----------
    row, column : int or None
        Position of the first value that is not finite, counted from 0 over the whole source.
    """

    def __init__(self, message: str, *, row: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.column = column


class DataChangedError(InvalidDataError):
    """Data that are read several times were not the same each time: a file was written to, or an iterable ended early.

    What was computed from them is not used.
    """


class NotFittedError(FastgmmError, ValueError, AttributeError):
    """A method that needs fitted parameters was called before ``fit``."""


class SingularCovarianceError(FastgmmError, ValueError):
    """A covariance is not positive definite to working precision.

    Attributes
    ----------
    component : int or None
        The first component concerned; None where all components share one covariance.
    family : str
        Name of the covariance family.
    min_eig : float
        Smallest eigenvalue (variance) of that covariance; NaN if it holds values that are not finite.
    """

    def __init__(self, message: str, *, component: int | None, family: str, min_eig: float) -> None:
        super().__init__(message)
        self.component = component
        self.family = family
        self.min_eig = min_eig


class IncompatibleStatisticsError(FastgmmError, ValueError):
    """Two sufficient statistics cannot be merged: their kinds or shapes differ."""


class ModelFileError(FastgmmError, ValueError):
    """A model file is damaged, foreign, or of a version that this release cannot read."""


class CheckpointError(FastgmmError, ValueError):
    """A checkpoint cannot be used: it is of other data or settings, it is damaged, or it is in the way."""


class ClusterError(FastgmmError, RuntimeError):
    """A cluster cannot be used, or was lost for good: no client, no workers, another version on a worker."""


class FastgmmWarning(UserWarning):
    """Base of all warnings that fastgmm emits on purpose."""


class ConvergenceWarning(FastgmmWarning):
    """A fit ended before its tolerance was met (scikit-learn's own class is used instead when it is loaded)."""


class DegenerateComponentWarning(FastgmmWarning):
    """A component lost all its rows or collapsed onto too few of them, and was repaired by the stated policy."""


class DegenerateDataWarning(FastgmmWarning):
    """The data cannot support the model asked for: constant columns, all rows equal, fewer rows than features."""


class KernelCacheWarning(FastgmmWarning):
    """The on-disk cache of compiled kernels cannot be used; kernels are compiled anew in this process."""
