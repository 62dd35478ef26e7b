"""Writes the golden model files of this release's format: ``python -m tests.golden.models.make``.

Run it once for each FORMAT_VERSION and commit what it wrote; it never touches a file that exists, because what a
release wrote is what later releases must read. Beside ``NAME.npz`` stands ``NAME.json``: the same numbers in
hexadecimal, as they were in memory when the file was written.
"""

import json
import warnings
from pathlib import Path

import numpy as np

import fastgmm
from fastgmm.datasets import load_faithful
from fastgmm.persist import FORMAT_VERSION

HERE = Path(__file__).parent


def models():
    """Name -> model; together they use every key of the header and every array of the format."""
    faithful = load_faithful()
    three = np.random.default_rng(0).normal(size=(150, 3)) + np.repeat([[0.0], [4.0], [9.0]], 50, axis=0)
    for kind in ("full", "tied", "diag", "spherical"):
        model = fastgmm.GaussianMixture(3, covariance_type=kind, random_state=0, n_init=2, tol=1e-4).fit(three)
        yield f"estimator-{kind}", model
        yield f"mixture-{kind}", model.mixture_
    yield "float32", fastgmm.GaussianMixture(2, random_state=1).fit(faithful.astype(np.float32))
    means = np.array([[2.0, 50.0], [4.0, 80.0]])
    yield "arrays", fastgmm.GaussianMixture(2, means_init=means, weights_init=[0.4, 0.6], max_iter=0).fit(faithful)
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        table = pd.DataFrame(faithful, columns=["eruptions", "Wartezeit (ß)"])
        yield "names", fastgmm.GaussianMixture(2, random_state=0).fit(table)
    twice = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    yield "degenerate", fastgmm.GaussianMixture(3, random_state=0, reg_covar=0.0).fit(twice)
    yield "given", fastgmm.GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [1.0, 1e-300], "spherical")


def contents(model):
    """What must come back, as JSON that is exact."""
    mixture = getattr(model, "mixture_", model)
    found = {
        name: {"shape": list(array.shape), "hex": [float(v).hex() for v in array.ravel()]}
        for name, array in (
            ("weights", mixture.weights),
            ("means", mixture.means),
            ("covariances", mixture.covariances),
        )
    }
    found["covariance_type"] = mixture.covariance_type
    found["kind"] = type(model).__name__
    if found["kind"] == "GaussianMixture":
        result = model.result_
        found["dtype"] = model.means_.dtype.name
        found["n_iter"], found["converged"] = int(model.n_iter_), bool(model.converged_)
        found["lower_bounds"] = [float(v).hex() for v in [model.lower_bound_, *model.lower_bounds_]]
        found["names"] = [str(name) for name in getattr(model, "feature_names_in_", [])]
        found["status"] = None if result is None else result.status.name
        found["events"] = [] if result is None else [[e.iteration, e.component, e.kind] for e in result.events]
        found["histories"] = [[float(r.log_likelihood).hex() for r in start.history] for start in model.starts_]
        kept = ("n_components", "covariance_type", "tol", "reg_covar", "max_iter", "n_init", "init_params")
        found["settings"] = {name: getattr(model, name) for name in kept}
        found["means_init"] = None if model.means_init is None else np.asarray(model.means_init).tolist()
    return found


def main():
    folder = HERE / str(FORMAT_VERSION)
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, model in models():
            if (folder / f"{name}.npz").exists():
                print(f"{name}: kept")
                continue
            fastgmm.save(model, folder / f"{name}.npz")
            text = json.dumps(contents(model), indent=1, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            print(f"{name}: written")


if __name__ == "__main__":
    main()
