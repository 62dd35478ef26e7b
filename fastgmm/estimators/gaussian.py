"""`GaussianMixture`: scikit-learn's estimator of that name, over this library's starts, EM loop and passes.

It differs from scikit-learn's on purpose in these points:

1. ``lower_bound_`` and ``lower_bounds_`` are of the parameters that they stand beside; scikit-learn's are those of one
   iteration before.
2. Starts are proper starts (`fastgmm.initialize`), and constructor arguments are never changed.
3. A component that dies or collapses is repaired and reported (``degenerate``), not an exception.
4. ``max_iter=0`` works with any start, and the fitted parameters are those of the start.
5. A ``reg_covar`` larger than the variance of every feature is taken relative to that variance, with a warning.
6. Fitted arrays are read-only; parameters that come from elsewhere go through `GaussianMixture.from_parameters`.
"""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np

from fastgmm import passes
from fastgmm.checkpoint import Checkpoint
from fastgmm.data import Rows, StreamRows, as_rows, feature_names, opened
from fastgmm.estimators._checks import check_callback, check_counts, deadline_of, last_fit, wanted_start
from fastgmm.estimators._convert import copy_from_sklearn, copy_to_sklearn
from fastgmm.estimators._engine import IN_MEMORY, Engine
from fastgmm.estimators._fit import FitCallback
from fastgmm.estimators._fitted import FittedMixture
from fastgmm.estimators._journal import Journal, check_checkpoint
from fastgmm.estimators._online import begin, go_on
from fastgmm.estimators._run import run_fit
from fastgmm.estimators._settings import check_settings
from fastgmm.estimators._sklearn import naming_bad_values
from fastgmm.minibatch import MiniBatch
from fastgmm.mixture import Mixture
from fastgmm.typing import IntArray
from fastgmm.validation import check_random_state


class GaussianMixture(FittedMixture):
    """Gaussian mixture model, fitted by expectation maximisation.

    Parameters
    ----------
    n_components : int, default 1
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}, default "full"
        Each component has its own covariance matrix; all share one; each has its own variances; each has one variance.
        mclust's codes "VVV", "EEE", "VVI", "VII" mean the same.
    tol : float, default 1e-3
        EM has converged when the mean log-likelihood (nats per row) changes by less. The default is scikit-learn's and
        stops early; 1e-6 costs more iterations and finds the optimum to about three more digits.
    reg_covar : float, default 1e-6
        Added to every variance, in squared units of X. Where it exceeds the variance of every feature it is taken
        relative to the largest, with a warning.
    max_iter : int, default 100
        EM iterations at most. 0 returns the start.
    n_init : int, default 1
        Number of starts; the one of the largest likelihood is kept, all are recorded in ``starts_``. Starts that are
        not random are made once.
    init_params : str, callable or array-like, default "kmeans"
        "kmeans": the clusters of k-means from a k-means++ seed. "k-means++": rows far apart as means.
        "random_from_data": random rows as means. "random": random responsibilities. These look at no more than
        max(min(65536, 2**21 / D), 32 K) rows, drawn in proportion to their weights. A function
        ``(X, n_components, rng)`` returns labels (N,), responsibilities (N, K) or a `fastgmm.Params`; labels or
        responsibilities may also be given themselves.
    weights_init : array-like (K,), optional
        Initial weights.
    means_init : array-like (K, D), optional
        Initial means. Weights and covariances that are not given are those of the rows nearest to them.
    precisions_init : array-like, optional
        Initial inverse covariances, in the shape of ``covariances_``.
    random_state : None, int, Generator, SeedSequence or RandomState, default None
        Of the starts and, unless it gets its own, of `sample`.
    warm_start : bool, default False
        Start from the last fit, if there is one; `n_init` is then ignored.
    verbose : int, default 0
        From 1 on, show a progress bar where stderr is a terminal.
    verbose_interval : int, default 10
        Iterations between two updates of the bar.
    degenerate : {"floor", "reseed", "drop", "raise"}, default "floor"
        What happens to a component that loses its rows or collapses onto too few distinct ones. "floor": its variances
        are raised by 1e-6 of the data's; without rows it stays where it is, with weight 0. "reseed": it is started
        again where the data are poorly fitted, up to 3 times. "drop": it is removed, and the fitted mixture has fewer
        components. All with a warning at the end. "raise": `fastgmm.SingularCovarianceError` for a collapse (if it
        happens from every start).
    reg_scale : {"absolute", "relative"}, default "absolute"
        Unit of `reg_covar`: squared units of X, or the variance of each feature (for "spherical" their mean), so that
        the fit does not depend on the unit of X.
    learning_decay : float, default 0.6
        Of `partial_fit` and `first_passes`: the t-th batch of its size moves the running statistics by
        (t + learning_offset)**-learning_decay. Above 0.5 and at most 1; near 1 the past counts longer, at 1 for ever.
    learning_offset : float, default 0
        The larger, the less the batches after the first one count.
    first_passes : MiniBatch or None, default None
        Passes in mini-batches before the iterations of `fit`, which can save many of these on large data; see
        `fastgmm.MiniBatch`.

    Attributes
    ----------
    weights_ : ndarray (K,)
    means_ : ndarray (K, D)
    covariances_ : ndarray
        (K, D, D) full, (D, D) tied, (K, D) diag, (K,) spherical.
    precisions_ : ndarray
        Inverse covariances, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular U with precision = U U'; 1 / std for diag and spherical. These five are read-only, and float32
        if X was.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log-likelihood of X under the fitted parameters, nats per unit of row weight.
    lower_bounds_ : list of float
        The same after each iteration.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only if X was a table whose column names are all strings.
    mixture_ : Mixture
        The fitted distribution, in float64.
    result_ : FitResult or None
        How the best start ended: status, history, events. None for parameters that were not fitted.
    starts_ : tuple of StartRecord
        Likelihood, history and events of every start.
    online_ : OnlineState or None
        What `partial_fit` remembers: running statistics, number of batches and rows, score of the last batch. None
        after `fit`.

    Notes
    -----
    A fit needs X and, beside it, at most 64 MB + 8 threads K D^2 bytes for K D^2 up to a million, a few more times
    8 K D^2 beyond: rows are read in blocks, nothing of size N x K exists.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> model = GaussianMixture(n_components=2, covariance_type="spherical", random_state=0).fit(X)
    >>> np.sort(model.means_, axis=0).round(6)
    array([[ 1.,  2.],
           [10.,  2.]])
    >>> bool(np.ptp(model.predict([[0, 0], [12, 3]])) == 1)
    True
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Any = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        degenerate: str = "floor",
        reg_scale: str = "absolute",
        learning_decay: float = 0.6,
        learning_offset: float = 0.0,
        first_passes: MiniBatch | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.degenerate = degenerate
        self.reg_scale = reg_scale
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.first_passes = first_passes

    def fit(
        self,
        X: Any,
        y: Any = None,  # noqa: ARG002 - scikit-learn passes it
        sample_weight: Any = None,
        *,
        callback: FitCallback | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        resume: bool = False,
        max_time: float | None = None,
    ) -> Self:
        """Estimate the parameters from X.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
            At least two rows, and as many as components. See `fastgmm.data.as_rows` for what is read.
        y : ignored
        sample_weight : array-like (N,), optional
            How often each row counts: finite, >= 0. Weight 0 is the same as leaving the row out.
        callback : callable, optional
            Called with a `fastgmm.IterationInfo` after each iteration of each start; a true result stops the fit,
            which keeps what it reached. It is no constructor parameter because it is no property of the
            model: a clone or a pickle must not carry it.
        checkpoint : path or Checkpoint, optional
            A directory for the state of this fit, kept every 30 s, at its end and when it is interrupted.
        resume : bool, default False
            Go on with the fit of `checkpoint`, to the bits of one that never stopped, or begin one if there is none.
        max_time : float, optional
            Seconds for this call. The fit ends after the first iteration that passes them, one iteration at least, and
            keeps what it reached.

        Returns
        -------
        GaussianMixture
            Itself.

        Raises
        ------
        InvalidParameterError, InvalidDataError, InvalidDataTypeError, NonFiniteDataError
            Naming parameter, expectation and value.
        SingularCovarianceError
            Only with ``degenerate="raise"``.
        CheckpointError
            If `checkpoint` holds a fit already and `resume` is False, or is of other data or settings, or damaged.

        Warns
        -----
        ConvergenceWarning
            If the best start did not converge within `max_iter` or `max_time`.
        DegenerateDataWarning, DegenerateComponentWarning
            If the data cannot support the model, or a component lost its rows or collapsed.
        """
        self._fit(X, sample_weight, callback, checkpoint=checkpoint, resume=resume, max_time=max_time)
        return self

    def fit_predict(
        self,
        X: Any,
        y: Any = None,  # noqa: ARG002 - scikit-learn passes it
        sample_weight: Any = None,
        *,
        callback: FitCallback | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        resume: bool = False,
        max_time: float | None = None,
    ) -> IntArray:
        """Fit and return the most probable component of each row, (N,); parameters as those of `fit`."""
        X = opened(X)
        rows = self._fit(X, sample_weight, callback, checkpoint=checkpoint, resume=resume, max_time=max_time)
        if rows.n_rows < rows.n_given:
            rows = as_rows(X.unweighted() if isinstance(X, StreamRows) else X)  # rows of weight 0 have a component, too
        with naming_bad_values(rows):
            return passes.predict(rows, self.mixture_.density)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,  # noqa: ARG002 - scikit-learn passes it
        sample_weight: Any = None,
    ) -> Self:
        """Learn from one more batch of rows, by a step of online EM; ``docs/online.md`` has the formulas.

        The first call starts from its batch as `fit` does from its data, with the same arguments, and takes one
        iteration of EM; it should therefore hold many rows of every component. After `fit`, the past counts as many
        rows as the fit had; after `from_parameters`, as many as the batch has. `fit` starts afresh.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
            The batch: in the first call at least two rows and as many as components, then at least one.
        y : ignored
        sample_weight : array-like (N,), optional
            How often each row counts, in the same unit in every call.

        Returns
        -------
        GaussianMixture
            Itself. ``online_`` holds the running statistics and the score of the batch under the parameters from
            before it; ``n_iter_`` is the number of batches, ``converged_`` is False, ``lower_bound_`` NaN and
            ``result_`` None, because nobody has seen all rows under these parameters.

        Raises
        ------
        InvalidParameterError, InvalidDataError, InvalidDataTypeError, NonFiniteDataError
            The model is then what it was before.
        SingularCovarianceError
            Only with ``degenerate="raise"``, if a component collapsed.

        Warns
        -----
        DegenerateDataWarning, DegenerateComponentWarning
            If the first batch cannot support the model, or a component lost its rows or collapsed. It then keeps its
            mean and covariance, or gets the floor: other choices of `degenerate` are for `fit`.

        Examples
        --------
        >>> import numpy as np
        >>> from fastgmm import GaussianMixture
        >>> rng = np.random.default_rng(0)
        >>> model = GaussianMixture(2, random_state=0)
        >>> for _ in range(50):
        ...     model = model.partial_fit(rng.normal(rng.choice([-5.0, 5.0], 400), 1.0)[:, None])
        >>> bool(np.abs(np.sort(model.means_, axis=0) - [[-5.0], [5.0]]).max() < 0.1)
        True
        """
        settings = check_settings(self)
        X = opened(X)
        if "mixture_" in self.__dict__:
            rows = self._rows(X, sample_weight, weighted=True)
            outcome = go_on(rows, settings, self, engine=IN_MEMORY, stacklevel=2)
        else:
            rows = IN_MEMORY.rows(X, sample_weight)
            names = feature_names(X)
            check_counts(rows, settings, type(self).__name__)
            outcome = begin(
                rows,
                settings,
                wanted_start(self, settings, rows.n_features),
                check_random_state(self.random_state),
                engine=IN_MEMORY,
                data=X,
                sample_weight=sample_weight,
                names=names,
                stacklevel=2,
            )
            self._remember_names(names)
        self._adopt_online(outcome.mixture, outcome.dtype, outcome.state)
        return self

    @classmethod
    def from_parameters(
        cls, weights: Any, means: Any, covariances: Any, covariance_type: str = "full", **params: Any
    ) -> Self:
        """Make a fitted estimator of given parameters.

        Parameters
        ----------
        weights : array-like (K,)
            Summing to one.
        means : array-like (K, D)
        covariances : array-like
            In the shape of `covariance_type`.
        covariance_type : str, default "full"
        **params
            Other constructor parameters.

        Raises
        ------
        InvalidParameterError
            If these do not describe a mixture.

        Examples
        --------
        >>> model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical")
        >>> model.predict([[0.1], [3.9]])
        array([0, 1])
        """
        mixture = Mixture(weights, means, covariances, covariance_type)
        model = cls(mixture.n_components, covariance_type=covariance_type, **params)
        model._adopt(mixture, np.dtype(np.float64))
        return model

    def to_sklearn(self) -> Any:
        """Return a fitted ``sklearn.mixture.GaussianMixture`` with the same parameters.

        Raises
        ------
        NotFittedError
        ImportError
            If scikit-learn is not installed.
        """
        self._check_is_fitted()
        return copy_to_sklearn(self)

    @classmethod
    def from_sklearn(cls, model: Any) -> Self:
        """Return a fitted estimator with the parameters of a fitted ``sklearn.mixture.GaussianMixture``.

        Raises
        ------
        InvalidParameterError
            If `model` is not one, or not fitted.
        """
        return copy_from_sklearn(cls, model)

    def save(self, path: Any) -> None:
        """Write the fitted model to a file; `fastgmm.load` reads it."""
        from fastgmm.persist import save

        save(self, path)

    def _fit(
        self,
        X: Any,
        sample_weight: Any,
        callback: FitCallback | None = None,
        *,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        resume: bool = False,
        max_time: float | None = None,
        rows: Rows | None = None,
        engine: Engine = IN_MEMORY,
        names: tuple[str, ...] | None = None,
    ) -> Rows:
        """Fit and return the rows; a search gives them, and so does a fit elsewhere, with its engine and names."""
        settings = check_settings(self)
        check_callback(callback)
        deadline, kept = deadline_of(max_time), check_checkpoint(checkpoint, resume)
        if engine is IN_MEMORY:
            X = opened(X)
            names = feature_names(X)
        if rows is None:
            rows = engine.rows(X, sample_weight)
        check_counts(rows, settings, type(self).__name__)
        start = wanted_start(self, settings, rows.n_features)
        warm = None
        if settings.warm_start and "mixture_" in self.__dict__:
            warm = last_fit(self.mixture_.params, settings, rows.n_features)
        rng = check_random_state(self.random_state)
        journal = None if kept is None else Journal(kept, resume=resume, estimator=self, rng=rng)
        outcome = run_fit(
            rows,
            settings,
            start,
            rng if journal is None else journal.rng,
            engine=engine,
            data=X,
            sample_weight=sample_weight,
            names=names,
            warm=warm,
            callback=callback,
            deadline=deadline,
            journal=journal,
            stacklevel=3,
        )
        self._remember_names(names)
        self._adopt(outcome.mixture, outcome.dtype, outcome.result, outcome.starts)
        self._flat = outcome.flat
        return outcome.rows
