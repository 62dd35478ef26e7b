"""How an estimator shows itself: one line in a terminal, a small table in a notebook."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

_LONG = 60
"""Characters of a parameter's value that are shown."""


def estimator_repr(estimator: Any, defaults: dict[str, Any]) -> str:
    """Return a call that would make the estimator, naming only what differs from the defaults."""
    given = ", ".join(f"{name}={_short(value)}" for name, value in _changed(estimator, defaults))
    return f"{type(estimator).__name__}({given})"


def estimator_html(estimator: Any, defaults: dict[str, Any]) -> str:
    """Return the parameters that differ from the defaults and, after a fit, how it ended and the mixture."""
    rows = [(name, _short(value)) for name, value in _changed(estimator, defaults)]
    mixture = estimator.__dict__.get("mixture_")
    if mixture is None:
        rows.append(("status", "not fitted"))
    else:
        result = estimator.__dict__.get("result_")
        rows.append(("status", "given parameters" if result is None else result.status.value))
        if result is not None:
            rows.append(("iterations", str(result.n_iter)))
            rows.append(("mean log-likelihood", f"{result.lower_bound:.6g}"))
            for what in ("empty", "collapsed"):
                components = getattr(result, what)
                if components:
                    rows.append((f"{what} components", ", ".join(map(str, components))))
    body = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
    shown = "" if mixture is None else mixture._repr_html_()
    return f"<div><strong>{html.escape(type(estimator).__name__)}</strong><table>{body}</table>{shown}</div>"


def _changed(estimator: Any, defaults: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, getattr(estimator, name)) for name, d in defaults.items() if not _same(getattr(estimator, name), d)]


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return type(value) is type(default) and not isinstance(value, np.ndarray) and bool(value == default)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
