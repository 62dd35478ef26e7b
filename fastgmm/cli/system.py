"""Commands about models and machines: info, warmup."""

from __future__ import annotations

import argparse
import itertools
import platform
import time
from importlib import metadata
from typing import Any

import numpy as np

from fastgmm import __version__
from fastgmm.cli.outputs import emit
from fastgmm.cli.report import align, count, describe_mixture
from fastgmm.cli.wording import for_shell
from fastgmm.covariance import FAMILIES
from fastgmm.data import open_rows
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.mixture import Mixture
from fastgmm.persist import load, read_header

__all__ = ["info", "warmup"]

_PROBLEMS = (
    *((n_features, 0.0, tuple(FAMILIES)) for n_features in (1, 2, 3, 4, 16)),
    (16, 100.0, tuple(FAMILIES)),
    *((192, apart, ("full",)) for apart in (0.0, 100.0)),
)
"""Numbers of features, distances between two clusters and families that take all kernels of passes together: few
features have their own, so have components near one another and far apart, and large covariances what prepares them."""

_MANY_ROWS = 100_000  # for several threads

PACKAGES = ("numpy", "scipy", "numba", "matplotlib", "pyarrow", "scikit-learn", "tqdm")


def info(args: argparse.Namespace) -> None:
    """Describe a model file, or this installation."""
    if args.model is None:
        _installation(args)
    else:
        _model(args)


def warmup(args: argparse.Namespace) -> None:
    """Compile every kernel by using it once; the cache on disk keeps the result."""
    from fastgmm.kernels._cache import cache_info

    rng = np.random.default_rng(0)
    start = time.perf_counter()
    before = cache_info()
    for dtype, (n_features, apart, kinds) in itertools.product((np.float64, np.float32), _PROBLEMS):
        x = rng.normal(size=(max(256, 8 * n_features), n_features))
        x[: len(x) // 2] += apart
        x = x.astype(dtype)
        for covariance_type in kinds:
            model = GaussianMixture(2, covariance_type=covariance_type, max_iter=2, tol=1e3, random_state=0)
            model.fit(x, sample_weight=np.ones(len(x)))
            model.fit(x)
            for use in (model.predict, model.predict_proba, model.score_samples):
                use(x)
    x = rng.normal(size=(_MANY_ROWS, 2))
    for rows in (x, open_rows(lambda: iter((x,)))):  # launches over arrays and over streams are two
        GaussianMixture(2, max_iter=2, tol=1e3, random_state=0).fit(rows)
    seconds = time.perf_counter() - start
    after = cache_info()
    compiled = after["misses"] - before["misses"]
    where = f"kept in {after['directory']}" if after["enabled"] and not after["problem"] else "not kept: no cache"
    text = f"Kernels ready after {seconds:.1f} s: {compiled} compiled, {where}."
    emit(text, {"seconds": seconds, "compiled": compiled, "cache": after}, as_json=args.json)


def _installation(args: argparse.Namespace) -> None:
    """Print versions, threads and the cache."""
    from fastgmm.kernels._cache import cache_info
    from fastgmm.kernels._jit import n_threads

    versions = {name: _version(name) for name in PACKAGES}
    cache = cache_info()
    summary: dict[str, Any] = {
        "fastgmm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "threads": n_threads(),
        "cache": cache,
    }
    state = cache["problem"] or ("in use" if cache["enabled"] else "switched off by FASTGMM_CACHE=0")
    rows = [
        ("fastgmm", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, version or "not installed") for name, version in versions.items()),
        ("threads", str(n_threads())),
        ("kernel cache", f"{cache['directory']}: {cache['files']} files, {cache['bytes'] / 1e6:.1f} MB, {state}"),
    ]
    emit(align(rows, left=2), summary, as_json=args.json)


def _model(args: argparse.Namespace) -> None:
    """Print what a model file holds."""
    model = load(args.model)
    header = read_header(args.model)
    mixture = model if isinstance(model, Mixture) else model.mixture_
    names = header.get("feature_names")
    fit = header.get("fit") or {}
    result = fit.get("result")
    lines = [
        ("file", str(args.model)),
        ("kind", header["kind"]),
        ("written by", f"fastgmm {header['written_by']['fastgmm']}, format {header['format_version']}"),
        ("covariance type", mixture.covariance_type),
        ("components", str(mixture.n_components)),
        ("features", f"{mixture.n_features}" + (f": {', '.join(names[:20])}" if names else "")),
        ("parameters", str(mixture.n_parameters)),
    ]
    if result is not None and not isinstance(model, Mixture) and model.result_ is not None:
        lines += [
            ("fit", f"{for_shell(model.result_.status.value)} {count(model.n_iter_, 'iteration')}"),
            ("log-likelihood", f"{model.result_.log_likelihood:.6g} ({model.lower_bound_:.6g} a row)"),
        ]
    elif not isinstance(model, Mixture) and (online := model.online_) is not None:
        lines += [
            ("learnt from", f"{online.n_rows} rows in {count(online.n_batches, 'batch')}"),
            ("last batch", f"{online.score:.6g} a row, under the model before it"),
        ]
    summary = {
        "file": args.model,
        **{key: header[key] for key in ("kind", "format_version", "written_by", "covariance_type")},
        "n_components": mixture.n_components,
        "n_features": mixture.n_features,
        "feature_names": names,
        "n_parameters": mixture.n_parameters,
        "settings": header.get("settings"),
        "fit": fit or None,
        "online": header.get("online"),
        "weights": mixture.weights,
        "means": mixture.means,
        "covariances": mixture.covariances,
    }
    emit(f"{align(lines, left=2)}\n\n{describe_mixture(mixture, names)}", summary, as_json=args.json)


def _version(package: str) -> str | None:
    """Return the version of an installed package without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
