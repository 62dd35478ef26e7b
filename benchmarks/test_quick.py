"""The quick loop: ``pytest benchmarks --benchmark-only`` times single passes on problems of a few milliseconds."""

from __future__ import annotations

import numpy as np

from benchmarks.data import Case, build
from benchmarks.kernels import bind

QUICK = (
    Case(100_000, 2, 8),
    Case(20_000, 16, 16),
    Case(10_000, 64, 16),
    Case(20_000, 64, 16, "diag"),
    Case(20_000, 64, 16, "spherical"),
    Case(20_000, 32, 16, "tied"),
)


def pytest_generate_tests(metafunc) -> None:
    """Parametrise without importing pytest: asv imports this file too, in environments without it."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", QUICK, ids=lambda c: c.name)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", ("float64", "float32"))


def test_accumulate(benchmark, case, dtype) -> None:
    from fastgmm.passes import Accumulator

    rows, density, scatter = bind(build(case, dtype))
    accumulate = Accumulator(rows, scatter)
    accumulate(density)
    statistics = benchmark(accumulate, density)
    benchmark.extra_info["GFLOP/s"] = (
        round(case.flops / benchmark.stats.stats.median / 1e9, 1) if benchmark.stats else None
    )
    assert np.isclose(statistics.total_weight, case.n)


def test_score_samples(benchmark, case, dtype) -> None:
    from fastgmm.passes import score_samples

    rows, density, _ = bind(build(case, dtype))
    score_samples(rows, density)
    assert benchmark(score_samples, rows, density).shape == (case.n,)


def test_predict(benchmark, case, dtype) -> None:
    from fastgmm.passes import predict

    rows, density, _ = bind(build(case, dtype))
    predict(rows, density)
    assert benchmark(predict, rows, density).shape == (case.n,)
