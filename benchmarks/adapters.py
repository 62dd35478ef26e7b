"""What each library of the comparison is told to do: one small function each, and the table of them at the end.

A function gets a `Task` and returns two: one that does the fit and nothing else (it is what is timed), and one that
reads (weights, means, covariances, log-likelihood of all rows) from what the first returned, and raises if the library
did not do so many iterations. Covariances have scikit-learn's shape for the type. Converting the data to the library's
own arrays happens before: no peer pays for it.

Runs in the library's own environment, so this file imports nothing but NumPy and that library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Task:
    """Data, a start and how long to go on from it."""

    X: np.ndarray  # (n, d), float64 or float32
    weights: np.ndarray  # (k,) float64
    means: np.ndarray  # (k, d) float64
    covariances: np.ndarray  # float64, scikit-learn's shape for the covariance type
    precisions: np.ndarray  # their inverses
    covariance_type: str
    iterations: int
    threads: int

    @property
    def k(self) -> int:
        return len(self.weights)

    def start(self, *names: str) -> list[np.ndarray]:
        """Return parts of the start in the data's type."""
        return [np.ascontiguousarray(getattr(self, name), dtype=self.X.dtype) for name in names]


def expect(done: int, task: Task) -> None:
    """Raise if a library did another number of iterations than it was told."""
    if int(done) != task.iterations:
        msg = f"{int(done)} iterations instead of {task.iterations}"
        raise RuntimeError(msg)


def fastgmm(task: Task):
    from fastgmm import GaussianMixture

    return _sklearn_like(GaussianMixture, task)


def sklearn(task: Task):
    from sklearn.mixture import GaussianMixture

    return _sklearn_like(GaussianMixture, task)


def _sklearn_like(estimator, task: Task):
    model = estimator(
        task.k,
        covariance_type=task.covariance_type,
        weights_init=task.weights,
        means_init=task.means,
        precisions_init=task.precisions,
        tol=0.0,
        reg_covar=0.0,
        max_iter=task.iterations,
    )

    def read(fitted):
        expect(fitted.n_iter_, task)
        return fitted.weights_, fitted.means_, fitted.covariances_, fitted.lower_bound_ * len(task.X)

    return lambda: model.fit(task.X), read


def onedal(task: Task):
    """Intel's oneDAL."""
    import daal4py

    daal4py.daalinit(task.threads)
    full = task.covariance_type == "full"
    algorithm = daal4py.em_gmm(
        task.k,
        fptype="double" if task.X.dtype == np.float64 else "float",
        maxIterations=task.iterations,
        accuracyThreshold=0.0,
        covarianceStorage="" if full else "diagonal",
    )
    weights, means, covariances = task.start("weights", "means", "covariances")
    matrices = [np.ascontiguousarray(c if full else c[None]) for c in covariances]

    def read(result):
        expect(result.nIterations.item(), task)
        fitted = np.array([c if full else c[0] for c in result.covariances])
        return result.weights[0], result.means, fitted, float(result.goalFunction.item())

    return lambda: algorithm.compute(task.X, weights[None], means, matrices), read


def pomegranate(task: Task):
    """`GeneralMixtureModel` of `Normal`; changed by a fit, so each fit makes its own."""
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    torch.set_num_threads(task.threads)
    X = torch.from_numpy(task.X)
    weights, means, covariances = (torch.from_numpy(a) for a in task.start("weights", "means", "covariances"))
    kind = {"full": "full", "diag": "diag"}[task.covariance_type]

    def fit():
        parts = [Normal(m.clone(), c.clone(), covariance_type=kind) for m, c in zip(means, covariances, strict=True)]
        # -inf: an improvement of 0 would already stop at tol=0
        model = GeneralMixtureModel(parts, priors=weights.clone(), max_iter=task.iterations, tol=-np.inf)
        return model.fit(X)

    def read(model):
        parts = model.distributions
        # it reports no number of iterations and no likelihood; the check against the oracle tells the first
        fitted = [np.stack([getattr(p, name).numpy() for p in parts]) for name in ("means", "covs")]
        return model.priors.numpy(), *fitted, None

    return fit, read


def tgmm(task: Task):
    import torch
    from tgmm import GaussianMixture

    torch.set_num_threads(task.threads)
    X = torch.from_numpy(task.X)
    weights, means, covariances = (torch.from_numpy(a) for a in task.start("weights", "means", "covariances"))
    model = GaussianMixture(
        task.k,
        n_features=X.shape[1],
        covariance_type={"tied": "tied_full"}.get(task.covariance_type, task.covariance_type),
        max_iter=task.iterations,
        tol=np.finfo(float).tiny,  # zero is refused
        reg_covar=0.0,
        init_weights=weights,
        init_means=means,
        init_covariances=covariances,
        device="cpu",
    )

    def read(fitted):
        expect(fitted.n_iter_ + 1, task)
        return (
            fitted.weights_.numpy(),
            fitted.means_.numpy(),
            fitted.covariances_.numpy(),
            float(fitted.lower_bound_) * len(X),
        )

    return lambda: model.fit(X), read


def torchgmm(task: Task):
    """The training step and trainer that `GaussianMixture.fit` ends with.

    `fit` itself takes means only, assigns every row to the nearest and so begins elsewhere, and trains a single batch
    as if it were many, in two passes an iteration.
    """
    import logging

    import torch
    from torchgmm.base.data import DataLoader, collate_tensor, dataset_from_tensors
    from torchgmm.bayes import GaussianMixture
    from torchgmm.bayes.core import cholesky_precision
    from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule
    from torchgmm.bayes.gmm.model import GaussianMixtureModel, GaussianMixtureModelConfig

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(task.threads)
    dtype = {"float64": torch.float64, "float32": torch.float32}[task.X.dtype.name]
    torch.set_default_dtype(dtype)
    weights, means, covariances = (torch.from_numpy(a) for a in task.start("weights", "means", "covariances"))
    factors = cholesky_precision(covariances, task.covariance_type)
    options = {"accelerator": "cpu", "precision": 64 if dtype == torch.float64 else 32, "barebones": False}
    estimator = GaussianMixture(task.k, covariance_type=task.covariance_type, trainer_params=options)
    loader = DataLoader(
        dataset_from_tensors(torch.from_numpy(task.X)), batch_size=len(task.X), collate_fn=collate_tensor
    )

    def fit():
        model = GaussianMixtureModel(GaussianMixtureModelConfig(task.k, task.X.shape[1], task.covariance_type))
        model.component_probs.copy_(weights)
        model.means.copy_(means)
        model.precisions_cholesky.copy_(factors)
        module = GaussianMixtureLightningModule(model, convergence_tolerance=0, covariance_regularization=0.0)
        trainer = estimator.trainer(max_epochs=task.iterations, enable_progress_bar=False)
        trainer.fit(module, loader)
        return model, module, trainer

    def read(result):
        model, module, trainer = result
        expect(module.current_epoch, task)
        total = -trainer.callback_metrics["nll"].item() * len(task.X)
        return model.component_probs.numpy(), model.means.numpy(), model.covariances.numpy(), total

    return fit, read


def gmmx(task: Task):
    """JAX; compiled for this shape and number of iterations before the time begins."""
    import jax

    jax.config.update("jax_enable_x64", task.X.dtype == np.float64)
    from gmmx import EMFitter, GaussianMixtureModelJax

    weights, means, covariances = task.start("weights", "means", "covariances")
    start = GaussianMixtureModelJax.from_squeezed(means, covariances, weights, task.covariance_type)
    start = jax.tree.map(jax.numpy.asarray, start)
    X = jax.numpy.asarray(task.X)
    fitter = EMFitter(max_iter=task.iterations, tol=0.0, reg_covar=0.0)
    compiled = type(fitter).fit.lower(fitter, X, start).compile()

    def read(result):
        expect(result.n_iter, task)
        model = result.gmm
        fitted = model.weights_numpy, model.means_numpy, model.covariances.values_numpy
        return *fitted, float(result.log_likelihood) * len(task.X)

    return lambda: jax.block_until_ready(compiled(fitter, X, start)), read


def opencv(task: Task):
    """`cv2.ml.EM`: computes in float64 whatever it gets."""
    import cv2

    cv2.setNumThreads(task.threads)
    kinds = {
        "full": cv2.ml.EM_COV_MAT_GENERIC,
        "diag": cv2.ml.EM_COV_MAT_DIAGONAL,
        "spherical": cv2.ml.EM_COV_MAT_SPHERICAL,
    }
    eye = np.eye(task.X.shape[1])
    matrices = {
        "full": lambda: task.covariances,
        "diag": lambda: task.covariances[:, None] * eye,
        "spherical": lambda: task.covariances[:, None, None] * eye,
    }[task.covariance_type]()
    squeeze = {"full": np.asarray, "diag": np.diag, "spherical": lambda c: c[0, 0]}[task.covariance_type]

    def fit():
        model = cv2.ml.EM_create()
        model.setClustersNumber(task.k)
        model.setCovarianceMatrixType(kinds[task.covariance_type])
        # its count is of E-steps, and the last one is not followed by an M-step; a decrease by 0 ends it too
        model.setTermCriteria((cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, task.iterations + 1, 0.0))
        return model, model.trainE(task.X, task.means, cv2.Mat(matrices, wrap_channels=False), task.weights[None])

    def read(result):
        model, (_, log_likelihoods, _, _) = result
        covariances = np.stack([squeeze(c) for c in model.getCovs()])
        return model.getWeights()[0], model.getMeans(), covariances, float(log_likelihoods.sum())

    return fit, read


def mlpack(task: Task):
    """`gmm_train`: begins with its own k-means whatever `input_model` it is given; computes in float64 only."""
    import mlpack

    diag = task.covariance_type == "diag"

    def fit():
        return mlpack.gmm_train(
            input_=task.X,
            gaussians=task.k,
            kmeans_max_iterations=1,
            max_iterations=task.iterations + (not diag),  # full covariances: it counts from one
            tolerance=0.0,
            no_force_positive=True,
            diagonal_covariance=diag,
        )["output_model"]

    def read(fitted):
        state = fitted.get_cpp_params()["GMM"]
        covariances = np.stack([np.asarray(p["covariance"]) for p in state["dists"]])
        if diag:
            covariances = np.diagonal(covariances, axis1=1, axis2=2)
        means = np.stack([np.ravel(p["mean"]) for p in state["dists"]])
        return np.ravel(state["weights"]), means, covariances, None

    return fit, read


ADAPTERS: dict[str, Any] = {
    f.__name__: f for f in (fastgmm, sklearn, onedal, pomegranate, tgmm, torchgmm, gmmx, opencv, mlpack)
}

PACKAGES = {
    "sklearn": ("scikit-learn",),
    "onedal": ("daal", "daal4py"),
    "opencv": ("opencv-contrib-python-headless", "opencv-python-headless"),
}
"""Distributions whose version is a library's, where its name is not theirs."""
