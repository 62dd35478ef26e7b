"""Agreement with stored results of mclust 6.0.0 and scikit-learn 1.9.1, on the real passes. tests/golden/README.md."""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fastgmm import covariance
from fastgmm.data import as_rows
from fastgmm.em import fit_em
from fastgmm.mixture import Mixture
from fastgmm.params import Params
from fastgmm.passes import Accumulator
from tests import reference
from tests.doubles import as_reference, statistics_of

GOLDEN = Path(__file__).parent / "golden"
DATASETS = ("faithful", "iris", "banknote", "cross", "ex41", "acidity", "galaxies")
ONE_FEATURE = {"E": "tied", "V": "full"}  # mclust's names for a single feature
SKLEARN = sorted(p.stem for p in (GOLDEN / "sklearn").glob("*.json"))


@cache
def data(name):
    with (GOLDEN / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    numeric = [i for i, column in enumerate(header) if column != "label"]
    return np.array([[float(row[i]) for i in numeric] for row in rows])


@cache
def mclust(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def mclust_cases():
    for name in DATASETS:
        codes = mclust(name)["from_partition"]["models"]
        for code in codes:
            if code in ONE_FEATURE or code in covariance.ALIASES:
                yield name, code


def accumulate(x, covariance_type):
    run = Accumulator(as_rows(x), covariance.family(covariance_type).scatter)
    return lambda params, *, moments=True: run(covariance.density(params), moments=moments)


def from_partition(name, code):
    """Parameters after exactly one M-step from mclust's stored partition."""
    x, stored = data(name), mclust(name)["from_partition"]
    family = covariance.family(ONE_FEATURE.get(code, code))
    k, d = stored["G"], x.shape[1]
    r = reference.one_hot(np.array(stored["partition"]) - 1, k)
    centre = np.array([x.mean(axis=0)] * k)
    blank = Params(np.full(k, 1.0 / k), centre, np.zeros(family.shape(k, d)), family.name)
    return x, covariance.maximize(statistics_of(x, r, family.scatter, centre), blank, 0.0)


@pytest.mark.parametrize(("name", "code"), list(mclust_cases()))
def test_mclust_one_m_step(name, code):
    x, params = from_partition(name, code)
    expected = mclust(name)["from_partition"]["models"][code]["loglik_after_1_iteration"]
    found = accumulate(x, params.covariance_type)(params, moments=False).log_likelihood
    assert found == pytest.approx(expected, rel=1e-11)
    assert reference.e_step(x, as_reference(params)).log_likelihood == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("name", "code"), list(mclust_cases()))
def test_mclust_at_convergence(name, code):
    x, params = from_partition(name, code)
    stored = mclust(name)["from_partition"]["models"][code]
    result = fit_em(
        accumulate(x, params.covariance_type),
        params,
        reference_variance=x.var(axis=0),
        reg_covar=0.0,
        tol=0.0,
        max_iter=stored["iterations"] - 1,  # mclust counts the M-step that made the start
    )
    mixture = Mixture.from_params(result.params)
    assert mixture.n_parameters == stored["df"]
    assert result.events == ()
    # mclust reports the log-likelihood of the parameters before the last M-step; at a relative change of 1e-12 and with
    # as many iterations that is the same number.
    assert result.log_likelihood == pytest.approx(stored["loglik"], rel=1e-10)
    np.testing.assert_allclose(result.params.weights, stored["parameters"]["pro"], atol=1e-6)
    scale = x.std(axis=0)
    means = np.reshape(stored["parameters"]["means"], result.params.means.shape)
    np.testing.assert_allclose(result.params.means / scale, means / scale, atol=1e-6)
    dense = np.asarray(stored["parameters"]["covariances"], dtype=float)
    k, d = means.shape
    dense = np.broadcast_to(dense.reshape(-1, d, d), (k, d, d))
    unit = np.outer(scale, scale)
    np.testing.assert_allclose(mixture.covariances_dense / unit, dense / unit, atol=1e-6)
    labels = np.array(stored["classification"]) - 1
    np.testing.assert_array_equal(mixture.predict(x), labels)


@cache
def sklearn_case(name):
    return json.loads((GOLDEN / "sklearn" / f"{name}.json").read_text())


@pytest.mark.parametrize("covariance_type", reference.TYPES)
@pytest.mark.parametrize("name", SKLEARN)
def test_scikit_learn_fifty_iterations(name, covariance_type):
    case = sklearn_case(name)
    x = data(case["dataset"])
    if case["standardised"]:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    stored = case["types"][covariance_type]
    first = covariance.make_params(
        case["weights_init"], case["means_init"], stored["covariances_init"], covariance_type
    )
    result = fit_em(
        accumulate(x, covariance_type),
        first,
        reference_variance=x.var(axis=0),
        reg_covar=case["reg_covar"],
        tol=0.0,
        max_iter=case["iterations"],
    )
    mixture = Mixture.from_params(result.params)
    assert mixture.n_parameters == stored["n_parameters"]
    assert result.n_iter == stored["n_iter"]
    for found, expected in (
        (result.params.weights, stored["weights"]),
        (result.params.means, stored["means"]),
        (result.params.covariances, stored["covariances"]),
        (mixture.precisions_cholesky, stored["precisions_cholesky"]),
        (mixture.logpdf(x)[:10], stored["score_samples_first10"]),
    ):
        expected = np.asarray(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(mixture.responsibilities(x)[:10], stored["proba_first10"], atol=1e-9)
    np.testing.assert_array_equal(mixture.predict(x), stored["labels"])
    trace = [result.initial_log_likelihood, *(record.log_likelihood for record in result.history)]
    np.testing.assert_allclose(np.array(trace[:-1]) / len(x), stored["reference_trace"], rtol=1e-10)
    np.testing.assert_allclose(np.array(trace[:-1]) / len(x), stored["lower_bounds"], rtol=1e-9)
    assert result.lower_bound == pytest.approx(stored["score"], rel=1e-10)
    assert reference.bic(result.log_likelihood, mixture.n_parameters, len(x)) == pytest.approx(stored["bic"], rel=1e-10)
    assert reference.aic(result.log_likelihood, mixture.n_parameters) == pytest.approx(stored["aic"], rel=1e-10)
