"""The ``--plot`` of a command: checked before the work, drawn after it."""

from __future__ import annotations

from typing import BinaryIO

from fastgmm.cli.inputs import Data
from fastgmm.cli.tables import needs
from fastgmm.errors import InvalidParameterError
from fastgmm.mixture import Mixture

__all__ = ["check_picture", "draw"]


def check_picture(path: str | None) -> str | None:
    """Return the format of a picture, None where none is asked for.

    Raises
    ------
    InvalidDataError
        If matplotlib is missing.
    InvalidParameterError
        If it does not write such files.
    """
    if path is None:
        return None
    needs("matplotlib", "plot", "drawing")
    from fastgmm.plotting import plot_format

    try:
        return plot_format(path)
    except InvalidParameterError as error:
        msg = f"--plot{str(error).removeprefix('path')}"
        raise InvalidParameterError(msg) from error


def draw(file: BinaryIO, picture_format: str, mixture: Mixture, data: Data, features: list[str] | None) -> None:
    """Draw a mixture and its rows into an open file.

    Parameters
    ----------
    file : binary file
        Where to write.
    picture_format : str
        What `check_picture` returned.
    mixture : Mixture
        What to draw.
    data : Data
        Rows and names of features.
    features : list of str or None
        Features to draw, by name or by number from 1.

    Raises
    ------
    InvalidParameterError
        If there is no such feature.
    """
    from fastgmm.plotting import plot_mixture

    positions = None if features is None else [_position(name, data, mixture.n_features) for name in features]
    figure = plot_mixture(mixture, data.x, features=positions, feature_names=data.names)
    figure.savefig(file, format=picture_format, dpi=150)


def _position(name: str, data: Data, n_features: int) -> int:
    """Return the position of a feature from 0."""
    if data.names is not None and name in data.names:
        return data.names.index(name)
    if name.isascii() and name.isdigit() and 1 <= int(name) <= n_features:
        return int(name) - 1
    known = f"1 to {n_features}" if data.names is None else ", ".join(data.names[:20])
    msg = f"--plot-features: there is no feature '{name}'; expected {known}."
    raise InvalidParameterError(msg)
