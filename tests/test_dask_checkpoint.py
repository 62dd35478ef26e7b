"""Checkpoints and limits of time of fits on a cluster: they go on with the same bits, there or in memory."""

import numpy as np
import pytest

import fastgmm.dask
from tests.daskhelp import assert_same_bits, generated, local, made_chunk, model

LENGTHS = (30_003, 1, 25_000)
X = np.concatenate([made_chunk(i, n, 3) for i, n in enumerate(LENGTHS)])
ITERATIONS = 12


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


class Stop(Exception):
    """What ends a fit here."""


def stop_at(iteration):
    def callback(info):
        if info.iteration == iteration:
            raise Stop

    return callback


def there(client, **options):
    return fastgmm.dask.fit(model("full", max_iter=ITERATIONS), generated(LENGTHS), client=client, **options)


def here(**options):
    return model("full", max_iter=ITERATIONS).fit(X, **options)


@pytest.mark.parametrize("persist", [True, False])
def test_a_fit_goes_on_from_its_checkpoint(client, tmp_path, persist):
    with pytest.raises(Stop):
        there(client, checkpoint=tmp_path, callback=stop_at(7), persist=persist)
    seen = []
    resumed = there(
        client, checkpoint=tmp_path, resume=True, persist=persist, callback=lambda info: seen.append(info.iteration)
    )
    assert 1 < seen[0] <= 8  # not from the beginning
    assert_same_bits(resumed, here())


def test_a_fit_goes_on_elsewhere(client, tmp_path):
    """Begun on a cluster and finished in memory, and the other way round."""
    expected = here()
    with pytest.raises(Stop):
        there(client, checkpoint=tmp_path / "one", callback=stop_at(5))
    assert_same_bits(here(checkpoint=tmp_path / "one", resume=True), expected)
    with pytest.raises(Stop):
        here(checkpoint=tmp_path / "other", callback=stop_at(5))
    assert_same_bits(there(client, checkpoint=tmp_path / "other", resume=True), expected)


def test_time_is_limited_and_the_rest_done_later(client, tmp_path):
    with pytest.warns(fastgmm.ConvergenceWarning, match="max_time"):
        short = fastgmm.dask.fit(
            fastgmm.GaussianMixture(3, max_iter=ITERATIONS, tol=0.0, random_state=0),
            generated(LENGTHS),
            client=client,
            checkpoint=tmp_path,
            max_time=1e-6,
        )
    assert short.result_.status is fastgmm.FitStatus.MAX_TIME
    assert short.n_iter_ < ITERATIONS
    assert_same_bits(there(client, checkpoint=tmp_path, resume=True), here())
