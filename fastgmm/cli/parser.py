"""The words of the command line: commands, arguments, help. Imports nothing heavy, so that ``--help`` comes at once."""

from __future__ import annotations

import argparse
from typing import Any, Final

__all__ = ["build_parser"]

DATA_HELP: Final = (
    "table of numbers: .csv, .tsv, .txt, .npy, .parquet, .feather, .h5 or .zarr; a folder or a quoted pattern of such"
    " files; '-' reads CSV from standard input"
)
RESULT_HELP: Final = "write the result here instead of to standard output: .csv, .npy, .parquet or .json"
EXAMPLES: Final = """examples:
  fastgmm demo
  fastgmm select data.csv --components 1-8
  fastgmm fit data.csv -k 3 --columns height,weight --out model.npz --plot fit.png
  fastgmm predict model.npz new.csv --proba --out labels.csv
  fastgmm sample model.npz 1000 > draws.csv

exit status: 0 success, 1 an error of data or files, 2 a wrong command line"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns
    -------
    argparse.ArgumentParser
        Its result has the name of the command as ``command``.
    """
    parser = argparse.ArgumentParser(
        prog="fastgmm",
        description="Gaussian mixture models: fit, use, compare.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="choose and fit a model of the bundled Old Faithful data")
    demo.add_argument(
        "--out", metavar="MODEL", default="faithful.npz", help="model file to write (default: %(default)s)"
    )
    demo.add_argument("--plot", metavar="FILE", help="picture to write (default: faithful.png if matplotlib is there)")
    _add_json(demo)

    fit = commands.add_parser("fit", help="fit a mixture and save it")
    _add_data(fit, weights=True)
    fit.add_argument("-k", "--components", type=_count, required=True, metavar="K", help="number of components")
    fit.add_argument(
        "--covariance",
        type=_family,
        default="full",
        metavar="TYPE",
        help="full, tied, diag or spherical (default: full)",
    )
    _add_fit(fit)
    _add_limits(fit)
    _add_dask(fit)
    fit.add_argument("--out", metavar="MODEL", help="model file to write (.npz)")
    _add_plot(fit)
    _add_json(fit)

    select = commands.add_parser("select", help="compare numbers of components and covariance types")
    _add_data(select, weights=True)
    select.add_argument(
        "-k",
        "--components",
        type=_counts,
        default="1-9",
        metavar="K",
        help="such as 1-6 or 2,4,8 (default: %(default)s)",
    )
    select.add_argument(
        "--covariance", type=_families, metavar="TYPES", help="such as full,diag (default: full,tied,diag,spherical)"
    )
    select.add_argument(
        "--criterion", choices=("bic", "aic", "icl"), default="bic", help="what decides (default: %(default)s)"
    )
    _add_fit(select)
    select.add_argument("--out", metavar="MODEL", help="file for the best model (.npz)")
    _add_plot(select)
    _add_json(select)

    predict = commands.add_parser("predict", help="most probable component of each row")
    _add_model(predict)
    _add_data(predict)
    predict.add_argument("--proba", action="store_true", help="add the probability of every component")
    predict.add_argument("--out", metavar="FILE", help=RESULT_HELP)
    _add_plot(predict)
    _add_json(predict)

    score = commands.add_parser("score", help="log-likelihood, BIC, AIC and ICL of data under a model")
    _add_model(score)
    _add_data(score, weights=True)
    score.add_argument("--out", metavar="FILE", help="write the log-density of each row: .csv, .npy, .parquet or .json")
    _add_json(score)

    sample = commands.add_parser("sample", help="draw rows from a model")
    _add_model(sample)
    sample.add_argument("n", type=_count, metavar="N", help="number of rows")
    sample.add_argument("--labels", action="store_true", help="add the component each row was drawn from")
    sample.add_argument("--out", metavar="FILE", help=RESULT_HELP)
    _add_seed(sample)
    _add_json(sample)

    info = commands.add_parser("info", help="describe a model file, or this installation")
    info.add_argument("model", nargs="?", metavar="MODEL", help="model file; without it: versions, threads, cache")
    _add_json(info)

    warmup = commands.add_parser("warmup", help="compile the kernels now, so that later runs start at once")
    _add_json(warmup)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file, as 'fastgmm fit --out' writes it")


def _add_data(parser: argparse.ArgumentParser, *, weights: bool = False) -> None:
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--columns", type=_columns, metavar="NAMES", help="features by name, number from 1, or range: a,b or 2-5"
    )
    parser.add_argument(
        "--header",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether a text file begins with column names; auto: if its first line has no number",
    )
    parser.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="read the data in blocks in every pass, or into memory; without it, by their size",
    )
    if weights:
        parser.add_argument("--weights", metavar="COLUMN", help="column of row weights, or a file with one column")


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to fit")
    group.add_argument(
        "--init", type=_method, default="kmeans", metavar="METHOD", help="kmeans, k-means++, random or random_from_data"
    )
    group.add_argument("--n-init", type=_count, default=1, metavar="N", help="starts, of which the best is kept")
    group.add_argument(
        "--tol", type=_not_negative, default=1e-3, metavar="T", help="stop below this gain per row (nats)"
    )
    group.add_argument("--max-iter", type=_count, default=100, metavar="N", help="iterations at most")
    group.add_argument("--reg-covar", type=_not_negative, default=1e-6, metavar="V", help="added to every variance")
    group.add_argument(
        "--reg-scale",
        choices=("absolute", "relative"),
        default="absolute",
        help="--reg-covar in squared units of the data, or as a fraction of their variances (default: %(default)s)",
    )
    group.add_argument(
        "--degenerate",
        choices=("floor", "reseed", "drop", "raise"),
        default="floor",
        help="what to do with a component that loses its rows or collapses: hold it up, start it elsewhere, remove it,"
        " stop with an error (default: %(default)s)",
    )
    group.add_argument(
        "--first-passes",
        type=_count,
        metavar="N",
        help="begin with N passes in mini-batches, which large data may gain by",
    )
    _add_seed(group)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("long fits")
    group.add_argument(
        "--max-time", type=_positive, metavar="SECONDS", help="stop after this time with what the fit has reached"
    )
    group.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the state of the fit in this directory, to go on after a stop or a crash",
    )
    group.add_argument(
        "--checkpoint-every",
        type=_not_negative,
        default=30.0,
        metavar="SECONDS",
        help="time between two checkpoints, at least (default: %(default)g)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the fit in --checkpoint, or begin one if there is none: the result has the same bits",
    )


def _add_dask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dask",
        metavar="WHERE",
        help="fit on a Dask cluster: local:N for N processes here, or the address of a scheduler, tcp://host:8786",
    )


def _add_seed(parser: Any) -> None:
    parser.add_argument("--seed", type=_seed, default=0, metavar="S", help="of random numbers (default: %(default)s)")


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", help="picture to write: .png, .pdf, .svg (needs matplotlib)")
    parser.add_argument(
        "--plot-features",
        type=_columns,
        metavar="NAMES",
        help="features to draw, by name or number from 1 (up to eight)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


class _Version(argparse.Action):
    """Print the version; asked for only when it is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from fastgmm import __version__

        print(f"fastgmm {__version__}")
        parser.exit()


def _count(text: str) -> int:
    """Read a whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        msg = f"expected a whole number from 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _counts(text: str) -> list[int]:
    """Read numbers and ranges such as 1-6,8."""
    counts: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        first = _count(low.strip())
        last = _count(high.strip()) if dash else first
        if last < first or last - first > 10_000:
            msg = f"expected a range such as 1-6, got {part!r}"
            raise argparse.ArgumentTypeError(msg)
        counts.extend(range(first, last + 1))
    return counts


def _seed(text: str) -> int:
    """Read a whole number from 0."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        msg = f"expected a whole number from 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _not_negative(text: str) -> float:
    """Read a number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        msg = f"expected a number from 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _positive(text: str) -> float:
    """Read a number above 0."""
    value = _not_negative(text)
    if value == 0.0:
        msg = f"expected a number above 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _family(text: str) -> str:
    """Read the name of a covariance family; the registry knows them."""
    from fastgmm.covariance import family
    from fastgmm.errors import InvalidParameterError

    try:
        return family(text).name
    except InvalidParameterError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _families(text: str) -> list[str]:
    """Read names of covariance families separated by commas."""
    return [_family(name.strip()) for name in text.split(",")]


def _method(text: str) -> str:
    """Read the name of a start; the registry knows them."""
    from fastgmm.initialize import METHODS

    if text not in METHODS:
        msg = f"expected one of {', '.join(METHODS)}; got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _columns(text: str) -> list[str]:
    """Read names of columns."""
    from fastgmm.cli.tables import parse_columns

    try:
        return parse_columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
