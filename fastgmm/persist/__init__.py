"""Save and load models: one file, exact to the bit, safe to open, readable by every later release.

Read this file first; `account` holds the settings and the story of the fit, `learning` what `partial_fit` remembers,
`fastgmm.archive` the bytes.

1. The container is `fastgmm.archive`: JSON header and plain arrays, checked before they are believed; no code in it.
2. The parameters are stored, not what follows from them: precisions and factors are computed anew on loading.
3. A `format_version` counts changes of meaning. A reader takes every version up to its own; a file from the future is
   refused with a sentence and not read half. A new key that old readers may ignore is no new version.
4. A file can satisfy the container's checks and still hold nonsense. The parameters are checked as a user's are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import numpy as np

from fastgmm import __version__
from fastgmm.archive import Archive, read_archive, write_archive
from fastgmm.covariance import make_params
from fastgmm.errors import FastgmmError, InvalidParameterError, ModelFileError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.mixture import Mixture
from fastgmm.params import Params
from fastgmm.persist.account import pack_fit, pack_settings, unpack_fit, unpack_settings
from fastgmm.persist.learning import pack_first_passes, pack_online, unpack_first_passes, unpack_online
from fastgmm.typing import Array

__all__ = ["FORMAT", "FORMAT_VERSION", "load", "read_header", "save"]

FORMAT: Final = "fastgmm model"
FORMAT_VERSION: Final = 1

_REQUIRED_KEYS: Final = ("kind", "covariance_type")
_REQUIRED_ARRAYS: Final = ("weights", "means", "covariances")


def save(model: Mixture | GaussianMixture, path: str | os.PathLike[str] | BinaryIO) -> None:
    """Save a mixture, or an estimator with its settings and the account of its fit.

    Parameters
    ----------
    model : Mixture or fitted GaussianMixture
        What to save.
    path : str, os.PathLike or binary file
        The file, by custom ``*.npz``; written completely or not at all. No extension is added. Completeness of a file
        that is open already is up to who opened it.

    Raises
    ------
    InvalidParameterError
        If `model` is neither of the two.
    NotFittedError
        If the estimator is not fitted.
    OSError
        If the file cannot be written; an existing file is then unchanged.

    Warns
    -----
    FastgmmWarning
        For settings that are code or a generator's state (a callable start, ``random_state`` other than a
        number): the file has the default in their place.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastgmm import Mixture, load, save
    >>> mixture = Mixture([0.25, 0.75], [[0.0], [4.0]], [1.0, 2.0], "spherical")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(mixture, Path(directory, "model.npz"))
    ...     load(Path(directory, "model.npz")).weights
    array([0.25, 0.75])
    """
    if isinstance(model, Mixture):
        mixture = model
    elif isinstance(model, GaussianMixture):
        model._check_is_fitted()
        mixture = model.mixture_
    else:
        msg = f"model must be a Mixture or a fitted GaussianMixture; got {type(model).__name__}"
        raise InvalidParameterError(msg)
    params = mixture.params
    arrays: dict[str, Array] = {name: getattr(params, name) for name in _REQUIRED_ARRAYS}
    header: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": Mixture.__name__ if model is mixture else GaussianMixture.__name__,
        "covariance_type": params.covariance_type,
        "n_components": params.n_components,
        "n_features": params.n_features,
        "written_by": {"fastgmm": __version__, "numpy": np.__version__},
    }
    if isinstance(model, GaussianMixture):
        names = getattr(model, "feature_names_in_", None)
        header["feature_names"] = None if names is None else [str(name) for name in names]
        header["settings"] = pack_settings(model, arrays)
        header["fit"] = pack_fit(model, arrays)
        header["online"] = pack_online(model.online_, arrays)
        header["first_passes"] = pack_first_passes(model.first_passes)
    write_archive(path, header, arrays)


def load(path: str | os.PathLike[str]) -> Mixture | GaussianMixture:
    """Load what `save` wrote. No code of the file is run, whatever it contains.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    Mixture or GaussianMixture
        What was saved: the same bits, and the same results.

    Raises
    ------
    ModelFileError
        If the file is damaged, of another program, or of a newer release.
    OSError
        If it cannot be opened.
    """
    archive = read_archive(path)
    build = _BUILDERS[_check_header(archive.header, path)]
    missing = [name for name in _REQUIRED_ARRAYS if name not in archive.arrays]
    if missing:
        msg = f"{path} is not a complete model file: it has no {', '.join(missing)}; save the model again."
        raise ModelFileError(msg)
    try:
        return build(archive)
    except (FastgmmError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, KeyError):
            reason = f"it has no {reason}"
        msg = f"{path} is a damaged model file: {reason}; save the model again or restore the file."
        raise ModelFileError(msg) from error


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a model file says about itself, without its arrays.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    dict
        ``kind``, ``covariance_type``, ``n_components``, ``n_features``, ``written_by`` and, for an estimator,
        ``settings``, ``fit`` and ``feature_names``.

    Raises
    ------
    ModelFileError
        As `load`.
    OSError
        If it cannot be opened.
    """
    header = read_archive(path, only_header=True).header
    _check_header(header, path)
    return header


def _check_header(header: Mapping[str, Any], path: str | os.PathLike[str]) -> str:
    """Return the kind of model, or refuse the file."""
    if header.get("format") != FORMAT:
        msg = f"{path} is not a model file of fastgmm: its format is {header.get('format')!r}, expected {FORMAT!r}."
        raise ModelFileError(msg)
    version = header.get("format_version")
    if not isinstance(version, int) or version < 1:
        msg = f"{path} is a damaged model file: its format_version is {version!r}, expected a number from 1."
        raise ModelFileError(msg)
    if version > FORMAT_VERSION:
        msg = (
            f"{path} was written by a newer fastgmm: its format_version is {version}, this release ({__version__})"
            f" reads up to {FORMAT_VERSION}; upgrade fastgmm."
        )
        raise ModelFileError(msg)
    missing = [key for key in _REQUIRED_KEYS if key not in header]
    if missing:
        msg = f"{path} is not a complete model file: its header has no {', '.join(missing)}; save the model again."
        raise ModelFileError(msg)
    kind = header["kind"]
    if kind not in _BUILDERS:
        msg = f"{path} holds a {kind!r}; this release ({__version__}) reads {', '.join(_BUILDERS)}."
        raise ModelFileError(msg)
    return str(kind)


def _params(archive: Archive) -> Params:
    """Return the parameters, checked as a user's are but with every bit as stored."""
    weights, means, covariances = (archive.arrays[name] for name in _REQUIRED_ARRAYS)
    for name in _REQUIRED_ARRAYS:
        if archive.arrays[name].dtype != np.float64:
            msg = f"{name} must be float64; got {archive.arrays[name].dtype}"
            raise InvalidParameterError(msg)
    checked = make_params(weights, means, covariances, archive.header["covariance_type"])
    stated = (archive.header.get("n_components"), archive.header.get("n_features"))
    if stated != means.shape:
        msg = f"its header states {stated} components and features, but means has shape {means.shape}"
        raise InvalidParameterError(msg)
    # make_params normalises the weights, which may move their last bit.
    return Params(weights, means, covariances, checked.covariance_type)


def _load_mixture(archive: Archive) -> Mixture:
    return Mixture.from_params(_params(archive))


def _load_gaussian_mixture(archive: Archive) -> GaussianMixture:
    header = archive.header
    params = _params(archive)
    model = GaussianMixture(**unpack_settings(header["settings"], archive.arrays))
    model.first_passes = unpack_first_passes(header.get("first_passes"))
    unpack_fit(model, params, header["fit"], archive.arrays)
    model.online_ = unpack_online(header.get("online"), params, archive.arrays)
    names = header["feature_names"]
    if names is not None:
        if len(names) != params.n_features or not all(isinstance(name, str) for name in names):
            msg = f"feature_names must be {params.n_features} names; got {len(names)}"
            raise InvalidParameterError(msg)
        model._remember_names(tuple(names))
    return model


_BUILDERS: Final[dict[str, Callable[[Archive], Mixture | GaussianMixture]]] = {
    Mixture.__name__: _load_mixture,
    GaussianMixture.__name__: _load_gaussian_mixture,
}
