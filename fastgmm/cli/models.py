"""Commands that make models: demo, fit, select."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from fastgmm.checkpoint import Checkpoint
from fastgmm.cli.distributed import fitting
from fastgmm.cli.inputs import Data, read_data
from fastgmm.cli.outputs import check_model_name, emit, opened
from fastgmm.cli.pictures import check_picture, draw
from fastgmm.cli.report import count, describe_mixture, describe_selection
from fastgmm.cli.wording import for_shell
from fastgmm.data import as_rows
from fastgmm.datasets import FAITHFUL_COLUMNS, load_faithful
from fastgmm.errors import InvalidDataError, InvalidParameterError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.minibatch import MiniBatch
from fastgmm.persist import save
from fastgmm.progress import progress_bar
from fastgmm.selection import COVARIANCE_TYPES, Candidate, SelectionResult, describe, select_model

__all__ = ["demo", "fit", "select"]


def fit(args: argparse.Namespace) -> None:
    """Fit a mixture, print it, and write the model and a picture where asked."""
    check_model_name(args.out)
    picture = check_picture(args.plot)
    with opened(args.out, args.plot, inputs=(args.data, args.weights)) as (model_file, picture_file):
        data = _read(args, stream=None if args.dask is None else True)
        model = GaussianMixture(args.components, covariance_type=args.covariance, **_options(args))
        rows = as_rows(data.x, data.weights)
        with fitting(args.dask) as run, progress_bar(args.max_iter, rows=rows.n_rows) as bar:
            start = time.perf_counter()
            run(model, data, bar, checkpoint=_checkpoint(args), resume=args.resume, max_time=args.max_time)
        seconds = time.perf_counter() - start
        _name_features(model, data.names)
        candidate = describe(model, rows)
        _write(model, model_file, picture, picture_file, data, args.plot_features)
    files = [name for name in (args.out, args.plot) if name is not None]
    summary = {"data": data.source, **_summary(model, candidate, data), "seconds": seconds, "files": files}
    emit(_text(model, candidate, data, files, seconds), summary, as_json=args.json)


def select(args: argparse.Namespace) -> None:
    """Compare models, print the tables, and write the best model and a picture where asked."""
    check_model_name(args.out)
    picture = check_picture(args.plot)
    with opened(args.out, args.plot, inputs=(args.data, args.weights)) as (model_file, picture_file):
        data = _read(args)
        types = args.covariance or COVARIANCE_TYPES
        result = _search(data, args.components, types, args.criterion, _options(args))
        model = result.best_model
        _name_features(model, data.names)
        _write(model, model_file, picture, picture_file, data, args.plot_features)
    files = [name for name in (args.out, args.plot) if name is not None]
    best = result.best
    text = (
        f"{describe_selection(result)}\n\nBest: {count(best.n_components, 'component')},"
        f" covariance type {best.covariance_type}.{_written(files)}"
    )
    summary = {
        "data": data.source,
        "criterion": result.criterion,
        "best": _summary(model, best, data),
        "candidates": result.as_rows(),
        "files": files,
    }
    emit(text, summary, as_json=args.json)


def demo(args: argparse.Namespace) -> None:
    """Choose a model of the Old Faithful data by BIC, print it, write it and draw it."""
    check_model_name(args.out)
    plot, note = args.plot, ""
    try:
        picture = check_picture(plot or "faithful.png")
    except InvalidDataError as error:  # no matplotlib
        if plot is not None:
            raise
        picture, note = None, f"\nNo picture: {error}"
    else:
        plot = plot or "faithful.png"
    with opened(args.out, plot) as (model_file, picture_file):
        data = Data(load_faithful(), None, FAITHFUL_COLUMNS, "Old Faithful")
        start = time.perf_counter()
        # A tighter tolerance than the default: a table of BIC is read to the second digit behind the point.
        options = {"tol": 1e-6, "max_iter": 1000, "n_init": 3, "random_state": 0}
        result = _search(data, range(1, 7), COVARIANCE_TYPES, "bic", options)
        seconds = time.perf_counter() - start
        model = result.best_model
        _name_features(model, data.names)
        _write(model, model_file, picture, picture_file, data, None)
    files = [name for name in (args.out, plot) if name is not None]
    text = (
        "Old Faithful: duration of 272 eruptions and the waiting time to the next, in minutes.\n"
        f"Which mixture describes them best? {len(result.candidates)} models compared in {seconds:.2f} s:\n\n"
        f"{describe_selection(result, ['bic'])}\n\n{_text(model, result.best, data, files)}{note}"
    )
    summary = {
        "data": data.source,
        "best": _summary(model, result.best, data),
        "candidates": result.as_rows(),
        "seconds": seconds,
        "files": files,
    }
    emit(text, summary, as_json=args.json)


def _read(args: argparse.Namespace, stream: bool | None = None) -> Data:
    """Read what the arguments of a command with weights name."""
    return read_data(
        args.data, columns=args.columns, weights=args.weights, header=args.header, stream=stream or args.stream
    )


def _checkpoint(args: argparse.Namespace) -> Checkpoint | None:
    """Return where to keep checkpoints, and how often."""
    if args.checkpoint is None:
        if args.resume:
            msg = "--resume needs --checkpoint DIR, the directory of the fit that is to go on."
            raise InvalidParameterError(msg)
        return None
    return Checkpoint(args.checkpoint, every_seconds=args.checkpoint_every)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the estimator's parameters that fit and select share."""
    return {
        "init_params": args.init,
        "n_init": args.n_init,
        "tol": args.tol,
        "max_iter": args.max_iter,
        "reg_covar": args.reg_covar,
        "reg_scale": args.reg_scale,
        "degenerate": args.degenerate,
        "first_passes": None if args.first_passes is None else MiniBatch(args.first_passes),
        "random_state": args.seed,
    }


def _search(
    data: Data, counts: Sequence[int], types: Sequence[str], criterion: str, options: dict[str, Any]
) -> SelectionResult:
    """Compare models, with a progress bar."""
    with progress_bar(len(counts) * len(types), "select") as bar:

        def show(candidate: Candidate, done: int, _total: int) -> None:
            bar.update(done, f"{candidate.n_components} {candidate.covariance_type}")

        return select_model(data.x, counts, types, criterion, sample_weight=data.weights, callback=show, **options)


def _name_features(model: GaussianMixture, names: tuple[str, ...] | None) -> None:
    """Give the model the names of the columns, so that its file can find them in other tables."""
    if names is not None:
        model.feature_names_in_ = np.array(names, dtype=object)


def _write(
    model: GaussianMixture,
    model_file: BinaryIO | None,
    picture: str | None,
    picture_file: BinaryIO | None,
    data: Data,
    features: list[str] | None,
) -> None:
    """Write the files that were opened."""
    if model_file is not None:
        save(model, model_file)
    if picture_file is not None and picture is not None:
        draw(picture_file, picture, model.mixture_, data, features)


def _summary(model: GaussianMixture, candidate: Candidate, data: Data) -> dict[str, Any]:
    """Return what JSON says about a fit."""
    mixture = model.mixture_
    return {
        "n_rows": data.n_rows,
        "n_features": mixture.n_features,
        "feature_names": data.names,
        "n_components": mixture.n_components,
        "covariance_type": mixture.covariance_type,
        "status": None if model.result_ is None else model.result_.status.name,
        "converged": candidate.converged,
        "n_iter": candidate.n_iter,
        "log_likelihood": candidate.log_likelihood,
        "mean_log_likelihood": model.lower_bound_,
        "n_parameters": candidate.n_parameters,
        "bic": candidate.bic,
        "aic": candidate.aic,
        "icl": candidate.icl,
        "weights": mixture.weights,
        "means": mixture.means,
        "covariances": mixture.covariances,
    }


def _text(
    model: GaussianMixture, candidate: Candidate, data: Data, files: Sequence[str], seconds: float | None = None
) -> str:
    """Return the table of a fit."""
    mixture = model.mixture_
    result = model.result_
    took = "" if seconds is None else f" {seconds:.2f} s."
    status = "" if result is None else f"{for_shell(result.status.value)} {count(result.n_iter, 'iteration')}.{took}\n"
    return (
        f"{count(mixture.n_components, 'component')}, covariance type {mixture.covariance_type};"
        f" {count(data.n_rows, 'row')}, {count(mixture.n_features, 'feature')}.\n{status}"
        f"log-likelihood {candidate.log_likelihood:.3f} ({model.lower_bound_:.5g} a row), {candidate.n_parameters}"
        f" parameters\nBIC {candidate.bic:.2f}, AIC {candidate.aic:.2f}, ICL {candidate.icl:.2f} (smaller is better)"
        f"\n\n{describe_mixture(mixture, data.names)}{_written(files)}"
    )


def _written(files: Sequence[str]) -> str:
    """Return the line that names the files written, if there are any."""
    return f"\n\nWrote {' and '.join(files)}." if files else ""
