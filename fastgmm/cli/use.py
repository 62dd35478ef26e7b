"""Commands that use a model: predict, score, sample."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastgmm import passes
from fastgmm.cli.inputs import Data, read_data
from fastgmm.cli.outputs import emit, opened, print_columns, result_format, write_columns
from fastgmm.cli.pictures import check_picture, draw
from fastgmm.cli.report import align
from fastgmm.covariance import FAMILIES
from fastgmm.data import Rows, StreamRows, as_rows
from fastgmm.data.results import Columns, row_results
from fastgmm.estimators._sklearn import naming_bad_values
from fastgmm.mixture import Mixture
from fastgmm.persist import load
from fastgmm.typing import IntArray

__all__ = ["predict", "sample", "score"]


class _Model(NamedTuple):
    """A loaded model: the distribution, and the names of its features if it knows them."""

    mixture: Mixture
    names: tuple[str, ...] | None


def predict(args: argparse.Namespace) -> None:
    """Print or write the most probable component of each row."""
    result_format(args.out)
    picture = check_picture(args.plot)
    with opened(args.out, args.plot, inputs=(args.model, args.data)) as (out, picture_file):
        model = _load(args.model)
        data = _read(args, model, None)
        rows = _unweighted(data)
        counts = np.zeros(model.mixture.n_components, np.int64)
        pieces = _labels(rows, model.mixture, counts, proba=args.proba)
        if out is None:
            print_columns(pieces, as_json=args.json, stream=sys.stdout)
        else:
            write_columns(pieces, out, args.out, rows.n_rows)
        if picture_file is not None and picture is not None:
            draw(picture_file, picture, model.mixture, data, args.plot_features)
    if out is not None:
        table = [["component", "rows"], *([str(k), str(count)] for k, count in enumerate(counts))]
        summary = {"n_rows": data.n_rows, "counts": counts, "files": [args.out]}
        emit(f"{align(table)}\n\nWrote {args.out}.", summary, as_json=args.json)


def _labels(rows: Rows, mixture: Mixture, counts: IntArray, *, proba: bool) -> Iterator[Columns]:
    """Yield labels, with probabilities where asked, and count the labels."""
    density = mixture.density
    if proba:
        for r in row_results(rows, lambda piece: passes.predict_proba(piece, density), mixture.n_components):
            label = np.argmax(r, axis=1)
            counts += np.bincount(label, minlength=counts.shape[0])
            yield {"label": label, **{f"p{k}": r[:, k] for k in range(mixture.n_components)}}
    else:
        for label in row_results(rows, lambda piece: passes.predict(piece, density), 1):
            counts += np.bincount(label, minlength=counts.shape[0])
            yield {"label": label}


def _unweighted(data: Data) -> Rows:
    """Return the rows, each once: also one of weight 0 has a result."""
    return data.x.unweighted() if isinstance(data.x, StreamRows) else as_rows(data.x)


def score(args: argparse.Namespace) -> None:
    """Print how likely the data are under the model; write the log-density of each row where asked."""
    result_format(args.out)
    with opened(args.out, inputs=(args.model, args.data, args.weights)) as (out,):
        model = _load(args.model)
        data = _read(args, model, args.weights)
        mixture = model.mixture
        rows = as_rows(data.x, data.weights)
        with naming_bad_values(rows, weightable=True):
            stats = passes.accumulate(rows, mixture.density, FAMILIES[mixture.covariance_type].scatter, moments=False)
        total_weight = stats.total_weight / rows.weight_scale
        log_likelihood = stats.log_likelihood / rows.weight_scale
        bic = -2.0 * log_likelihood + mixture.n_parameters * math.log(total_weight)
        summary: dict[str, Any] = {
            "n_rows": data.n_rows,
            "total_weight": total_weight,
            "log_likelihood": log_likelihood,
            "mean_log_likelihood": log_likelihood / total_weight,
            "n_parameters": mixture.n_parameters,
            "bic": bic,
            "aic": -2.0 * log_likelihood + 2.0 * mixture.n_parameters,
            "icl": bic - 2.0 * stats.log_map / rows.weight_scale,
        }
        if out is not None:
            scores = row_results(_unweighted(data), lambda piece: passes.score_samples(piece, mixture.density), 1)
            write_columns(({"log_density": score} for score in scores), out, args.out, data.n_rows)
            summary["files"] = [args.out]
    lines = [
        ("rows", f"{data.n_rows}"),
        ("log-likelihood", f"{log_likelihood:.6g}"),
        ("mean log-likelihood", f"{summary['mean_log_likelihood']:.6g}"),
        ("BIC", f"{bic:.2f}"),
        ("AIC", f"{summary['aic']:.2f}"),
        ("ICL", f"{summary['icl']:.2f}"),
    ]
    written = "" if out is None else f"\n\nWrote {args.out}."
    emit(align(lines, left=1) + written, summary, as_json=args.json)


def sample(args: argparse.Namespace) -> None:
    """Print or write rows drawn from the model."""
    result_format(args.out)
    with opened(args.out, inputs=(args.model,)) as (out,):
        model = _load(args.model)
        x, component = model.mixture.sample(args.n, args.seed)
        names = model.names or tuple(f"x{j + 1}" for j in range(model.mixture.n_features))
        columns: dict[str, np.ndarray] = {name: x[:, j] for j, name in enumerate(names)}
        if args.labels:
            columns["component"] = component
        if out is not None:
            write_columns([columns], out, args.out, args.n)
    if out is None:
        print_columns([columns], as_json=args.json, stream=sys.stdout)
    else:
        emit(f"Wrote {args.out}.", {"n_rows": args.n, "files": [args.out]}, as_json=args.json)


def _load(path: str) -> _Model:
    """Load a model of either kind."""
    model = load(path)
    if isinstance(model, Mixture):
        return _Model(model, None)
    names = getattr(model, "feature_names_in_", None)
    return _Model(model.mixture_, None if names is None else tuple(map(str, names)))


def _read(args: argparse.Namespace, model: _Model, weights: str | None) -> Data:
    """Read the rows a model is applied to: its features by name where both have names."""
    return read_data(
        args.data,
        columns=args.columns,
        weights=weights,
        header=args.header,
        stream=args.stream,
        expected=model.names,
        n_expected=model.mixture.n_features,
    )
