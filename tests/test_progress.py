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


def test_a_plain_line_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress.progress_bar(10, rows=1000, stream=stream) as bar:
        bar.within(500)
        bar(info(2))
    first, second, *_ = stream.getvalue().lstrip("\r").split("\r")
    assert first == "fit:   5%  00:01, at most 00:21 left, 500 rows/s"
    assert second.startswith(
        "fit:  27%  00:02, at most 00:05 left, 1.5k rows/s, iteration 2, mean log-likelihood -1.25"
    )
    assert stream.getvalue().endswith("\r")
    assert stream.getvalue().split("\r")[-2].strip() == ""


def test_the_plain_line_counts_steps_too_and_starts_anew(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    stream = Terminal()
    with progress.progress_bar(4, "select", stream=stream) as bar:
        bar.update(3, "3 full")
        bar.update(1)
        assert bar._bar.n == 1
    assert "select:  75%" in stream.getvalue()
    assert "3 full" in stream.getvalue()
    assert "rows/s" not in stream.getvalue()


@pytest.mark.parametrize(("number", "text"), [(7.0, "7"), (1234.0, "1.23k"), (2.5e6, "2.5M"), (3e10, "30G")])
def test_short_numbers(number, text):
    assert progress._short(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "00:05"), (125, "02:05"), (7325, "2:02:05")])
def test_clock(seconds, text):
    assert progress._clock(seconds) == text


def test_shows_iteration_and_likelihood_on_a_terminal():
    pytest.importorskip("tqdm", reason="the line of progress is tqdm's")
    stream = Terminal()
    with progress.progress_bar(10, "fit", stream=stream) as bar:
        assert bar(info(5)) is None
        bar._bar.refresh()
        assert "5/10" in stream.getvalue()
        assert "mean log-likelihood -1.25" in stream.getvalue()
        bar(info(1))  # the next fit of several
        assert bar._bar.n == 1


def test_rows_are_counted_within_an_iteration_and_never_beyond_it():
    pytest.importorskip("tqdm", reason="the line of progress is tqdm's")
    stream = Terminal()
    with progress.progress_bar(10, rows=1000, stream=stream) as bar:
        assert bar._bar.total == 11_000  # the start is evaluated, too
        bar.within(400)
        assert bar._bar.n == 400
        bar(info(1))
        bar.within(5000)
        assert bar._bar.n == 3000
        bar._bar.refresh()
        assert " rows/s" in stream.getvalue()
        assert "at most" in stream.getvalue()
        assert "iteration 1, mean log-likelihood -1.25" in stream.getvalue()
        bar.within(10)  # another look at the rows before the pass is over
        assert bar._bar.n == 2010


def test_rows_of_a_bar_of_steps_and_of_none_are_ignored():
    with progress.progress_bar(10, stream=Terminal()) as bar:
        bar.within(5)
        assert bar._bar.n == 0
    bar.within(5)


def test_close_twice():
    bar = progress.progress_bar(3, stream=Terminal())
    bar.close()
    bar.close()
    bar.update(1)


def test_short_fits_stay_quiet(monkeypatch):
    pytest.importorskip("tqdm", reason="the line of progress is tqdm's")
    monkeypatch.setattr(progress, "DELAY", 60.0)
    stream = Terminal()
    with progress.progress_bar(3, stream=stream) as bar:
        bar(info(1))
    assert "%" not in stream.getvalue()
