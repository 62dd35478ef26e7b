"""Degenerate input x four covariance types x two precisions x six methods: how each combination ends.

    python -m tests.tools.degenerate_table        the table of docs/reliability.md

A cell is right (checked against the oracle, and against the same data moved and scaled to a harmless place), right with
a documented warning, or refused with a documented error. Anything else is an AssertionError.
"""

import warnings
from collections import Counter

import numpy as np

from fastgmm import GaussianMixture, errors
from tests import reference, rounding
from tests.tools.degenerate_rows import KINDS, METHODS, ROWS, X


class Ended(Exception):
    """A documented error; its name."""


def call(function, *args, **kwargs):
    """Return the result and the names of the warnings; anything not documented is an AssertionError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **kwargs)
        except errors.FastgmmError as error:
            assert len(str(error)) > 20
            raise Ended(type(error).__name__) from error
    for warning in caught:
        assert issubclass(warning.category, errors.FastgmmWarning), warning.message
    return result, tuple(sorted({w.category.__name__ for w in caught}))


def plain_array(data):
    """What the user's data say, as an array of doubles."""
    return np.array(data, dtype=np.float64)


def sound(model):
    """Check that fitted parameters describe a mixture."""
    mixture = model.mixture_
    assert mixture.weights.min() >= 0.0
    assert abs(mixture.weights.sum() - 1.0) < 1e-12
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert np.isfinite(getattr(model, name)).all(), name
    dense = mixture.covariances_dense
    deviation = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))
    assert deviation.min() > 0.0
    correlation = dense / deviation[:, :, None] / deviation[:, None, :]  # eigenvalues of 1e300 are beyond LAPACK
    np.testing.assert_array_equal(dense, dense.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(correlation).min() > 0.0
    assert np.isfinite(model.lower_bound_)
    assert np.isfinite(model.lower_bounds_).all()


def oracle(model, data):
    """Log-densities, responsibilities and what they may be off by, from components that have weight."""
    mixture = model.mixture_
    alive = mixture.weights > 0.0
    deviation = np.sqrt(mixture.covariances_dense[:, range(mixture.n_features), range(mixture.n_features)])
    unit = 2.0 ** np.round(np.log2(np.median(deviation)))  # a power of two: exact
    shared = mixture.covariance_type == "tied"
    parameters = reference.Parameters(
        mixture.weights[alive],
        mixture.means[alive] / unit,
        (mixture.covariances if shared else mixture.covariances[alive]) / unit / unit,
        mixture.covariance_type,
    )
    x = data / unit
    e = reference.e_step(x, parameters)
    joint = reference.log_joint(x, parameters)
    dtype = "float32" if model._dtype == np.float32 and model._pass_dtype is None else "float64"
    bounds = rounding.density(x, parameters, joint, dtype)
    own = rounding.density(x, parameters, joint, "float64")  # the oracle's own error
    log_density = e.log_density - mixture.n_features * np.log(unit)
    r = np.zeros((len(x), mixture.n_components))
    r[:, alive] = e.responsibilities
    return log_density, r, 2.0 * (bounds.log_density + own.log_density), bounds.log_responsibility.max(axis=1)


def check_methods(model, data, values):
    """Check score, score_samples, predict and predict_proba of a model on data that it can have densities for."""
    log_density, r, slack, relative = oracle(model, values)
    found, _ = call(model.score_samples, data)
    slack = slack + 1e-15 * np.abs(log_density) * values.shape[1]
    assert (np.abs(found - log_density) <= slack).all(), np.abs(found - log_density).max()
    score, _ = call(model.score, data)
    assert abs(score - found.mean()) <= 1e-12 * np.abs(found).mean() + slack.mean()
    proba, _ = call(model.predict_proba, data)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    wrong = np.abs(proba - r)
    assert (wrong <= np.expm1(np.minimum(3.0 * relative, 1.0))[:, None] + 1e-12).all(), wrong.max()
    labels, _ = call(model.predict, data)
    best = r[np.arange(len(r)), labels]
    assert (best >= r.max(axis=1) * np.exp(-6.0 * relative)).all()


def check_far(model, data):
    """Rows without a density: never NaN, and one component has them."""
    found, _ = call(model.score_samples, data)
    assert (found == -np.inf).all()
    proba, _ = call(model.predict_proba, data)
    np.testing.assert_array_equal(np.sort(proba, axis=1)[:, -1], 1.0)
    np.testing.assert_array_equal(call(model.predict, data)[0], proba.argmax(axis=1))


def check_sample(model):
    """Check that draws are finite and about the means of their components."""
    (x, labels), _ = call(model.sample, 3000, random_state=1)
    assert x.shape == (3000, model.n_features_in_)
    mixture = model.mixture_
    deviation = np.sqrt(np.diagonal(mixture.covariances_dense, axis1=1, axis2=2))
    for k in np.unique(labels):
        z = (x[labels == k] - mixture.means[k]) / deviation[k]
        assert np.isfinite(z).all()
        assert np.abs(z.mean(axis=0)).max() < 6.0 / np.sqrt(len(z)) + 1e-7
    assert mixture.weights[np.unique(labels)].min() > 0.0


def check_against_harmless(model, row, kind, data):
    """The same data moved back and scaled to unit size must give the same model."""
    values = plain_array(data)
    harmless = (values - row.shift) / row.scale
    # reg_covar is absolute, but relative where it would drown the data: docs/scikit-learn.md
    reg_covar = 1e-6 * harmless.var(axis=0).max() if row.scale < 1.0 else 1e-6 / row.scale**2
    base = make_model(row, kind, reg_covar=reg_covar).fit(harmless)
    order = match(model, base, row)
    single = data.dtype == np.float32
    rtol = 2e-4 if single else 1e-7
    np.testing.assert_allclose(model.mixture_.weights[order], base.mixture_.weights, atol=rtol)
    moved = (model.mixture_.means[order] - row.shift) / row.scale
    np.testing.assert_allclose(moved, base.mixture_.means, atol=10.0 * rtol)
    scaled = model.mixture_.covariances_dense[order] / row.scale / row.scale
    np.testing.assert_allclose(scaled, base.mixture_.covariances_dense, rtol=10.0 * rtol, atol=10.0 * rtol)


def match(model, base, row):
    """Components of `model` in the order of those of `base`."""
    moved = (model.mixture_.means - row.shift) / row.scale
    order = [int(np.abs(moved - mean).sum(axis=1).argmin()) for mean in base.mixture_.means]
    assert sorted(order) == list(range(len(order)))
    return order


def make_model(row, kind, **options):
    settings = {"n_components": row.n_components, "tol": 1e-5, "max_iter": 300, "random_state": 0}
    return GaussianMixture(covariance_type=kind, **settings | row.options | options)


def run(row, kind, dtype):
    """Return how each method ended: {method: "right", names of warnings, or the name of an error}."""
    data = row.make(dtype)
    model = make_model(row, kind)
    before = model.get_params()
    ended = {}
    try:
        _, said = call(model.fit, data)
    except Ended as error:
        ended["fit"] = str(error)
        assert model.get_params() == before
        model = make_model(row, kind, n_components=3).fit(X.astype(dtype))
    else:
        ended["fit"] = " + ".join(said) or "right"
        assert model.get_params() == before
        sound(model)
        if row.shift or row.scale != 1.0:
            check_against_harmless(model, row, kind, data)
    query = data if row.query is None else row.query(dtype)
    for method in METHODS[1:-1]:
        try:
            _, said = call(getattr(model, method), query)
            ended[method] = " + ".join(said) or "right"
        except Ended as error:
            ended[method] = str(error)
    if row.far:
        check_far(model, query)
    elif ended["score_samples"] == "right":
        check_methods(model, query, plain_array(query))
    check_sample(model)
    ended["sample"] = "right"
    return ended


def expected(row, kind, dtype):
    """How each method must end, in the form of `run`."""
    fit = " + ".join(sorted(row.expect(kind, dtype))) or "right"
    return dict.fromkeys(METHODS, "right") | {"fit": fit} | dict(row.methods)


def cells():
    """(row, covariance type, precision)."""
    for row in ROWS:
        for kind in KINDS:
            for dtype in row.dtypes:
                yield row, kind, dtype


def table(found):
    """Lines of Markdown: one row for each input, what each method did, and how often if not always."""
    yield "| input | " + " | ".join(METHODS) + " |"
    yield "|---" * (len(METHODS) + 1) + "|"
    for name, methods in found.items():
        texts = [
            ", ".join(how if len(ends) == 1 else f"{n} {how}" for how, n in ends.most_common())
            for ends in methods.values()
        ]
        yield f"| {name} | " + " | ".join(texts) + " |"


def main() -> None:
    found: dict[str, dict[str, Counter[str]]] = {}
    total: Counter[str] = Counter()
    for row, kind, dtype in cells():
        ended = run(row, kind, dtype)
        assert ended == expected(row, kind, dtype), (row.name, kind, dtype, ended)
        for method, how in ended.items():
            total[how] += 1
            found.setdefault(row.name, {}).setdefault(method, Counter())[how] += 1
    for line in table(found):
        print(line)
    ends = ", ".join(f"{n} {how}" for how, n in total.most_common())
    print(f"\n{sum(total.values())} combinations of {len(ROWS)} inputs: {ends}")


if __name__ == "__main__":
    main()
