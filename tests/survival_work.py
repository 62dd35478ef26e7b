"""What the processes of `test_survival.py`'s pools do; they import it by name."""

import hashlib
import warnings

import numpy as np


def fit_hash(seed):
    """Hash of one fit of fixed rows; the argument is only there for `map`."""
    from fastgmm import GaussianMixture

    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 6)) + 4.0 * rng.integers(0, 3, (20_000, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(3, max_iter=4, tol=0.0, random_state=0 * seed).fit(x)
    return hashlib.sha256(model.means_.tobytes() + model.covariances_.tobytes()).hexdigest()


def nested_hashes(seed):
    """Several of them in an inner pool."""
    from joblib import Parallel, delayed

    return set(Parallel(2)(delayed(fit_hash)(seed + i) for i in range(2)))
