"""The bar shows on a terminal and nowhere else, and never decides about a fit."""

import io
import sys
from types import SimpleNamespace

import pytest

from fastgmm import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)


def info(iteration):
    return SimpleNamespace(iteration=iteration, lower_bound=-1.25, change=1e-3)


def test_silent_where_nobody_looks():
    stream = io.StringIO()
    with progress.progress_bar(10, stream=stream) as bar:
        assert bar(info(1)) is None
    assert stream.getvalue() == ""


def test_silent_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = Terminal()
    with progress.progress_bar(10, stream=stream) as bar:
        bar(info(1))
    assert stream.getvalue() == ""


def test_shows_iteration_and_likelihood_on_a_terminal():
    pytest.importorskip("tqdm")
    stream = Terminal()
    with progress.progress_bar(10, "fit", stream=stream) as bar:
        assert bar(info(5)) is None
        bar._bar.refresh()
        assert "5/10" in stream.getvalue()
        assert "mean log-likelihood -1.25" in stream.getvalue()
        bar(info(1))  # the next fit of several
        assert bar._bar.n == 1


def test_close_twice():
    bar = progress.progress_bar(3, stream=Terminal())
    bar.close()
    bar.close()
    bar.update(1)


def test_short_fits_stay_quiet(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(progress, "DELAY", 60.0)
    stream = Terminal()
    with progress.progress_bar(3, stream=stream) as bar:
        bar(info(1))
    assert "%" not in stream.getvalue()
