"""Progress of long work on a terminal, and nothing at all where nobody would see it.

A bar appears only after a second, so that short fits stay quiet, and only on a terminal, so that log files stay clean.
tqdm draws it where it is installed, a plain line else. For a fit it counts rows: a step is a pass over all of them, so
the bar knows rows a second, and the time that is left if the fit needs all its iterations.
"""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from fastgmm.em import IterationInfo

__all__ = ["ProgressBar", "progress_bar"]

DELAY: Final = 1.0  # seconds before a bar appears
INTERVAL: Final = 0.2  # seconds between two looks of the plain line
FORMAT: Final = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, at most {remaining} left, {rate_fmt}{postfix}"


class _Bar(Protocol):
    """What this module uses of tqdm's bar."""

    n: float

    def update(self, n: float) -> Any: ...
    def reset(self) -> None: ...
    def set_postfix_str(self, s: str, refresh: bool) -> None: ...
    def close(self) -> None: ...


class ProgressBar:
    """A bar that is also the callback of a fit; made by `progress_bar`.

    Use it as a context manager, or call `close`. One bar may serve several fits in a row, as in a search.
    """

    def __init__(self, bar: _Bar | None = None, rows: int = 0) -> None:
        self._bar = bar
        self._rows = rows
        self._passes = 0

    def __call__(self, info: IterationInfo) -> None:
        """Show an iteration of a fit; returns nothing, so it never stops one."""
        iteration = f"iteration {info.iteration}, " if self._rows else ""
        text = f"{iteration}mean log-likelihood {info.lower_bound:.6g}, change {info.change:.2g}"
        self.update(info.iteration, text)

    def update(self, done: int, text: str = "") -> None:
        """Show that `done` steps have been made.

        Parameters
        ----------
        done : int
            Steps so far; may fall back to 1 when the next fit begins.
        text : str
            Words behind the bar.
        """
        if self._bar is None:
            return
        if text:
            self._bar.set_postfix_str(text, refresh=False)
        # A fit evaluates its start before the first iteration, so it has made one pass more.
        self._passes = done + 1
        self._move_to(self._passes * self._rows if self._rows else done)

    def within(self, rows: int) -> None:
        """Show that the pass under way has come to row `rows`; for passes that take their time."""
        if self._bar is not None and self._rows:
            self._move_to(self._passes * self._rows + min(rows, self._rows))

    def _move_to(self, target: float) -> None:
        assert self._bar is not None  # the callers have looked
        if target < self._bar.n:
            self._bar.reset()
        self._bar.update(target - self._bar.n)

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def progress_bar(total: int, label: str = "fit", *, rows: int = 0, stream: TextIO | None = None) -> ProgressBar:
    """Make a progress bar.

    Parameters
    ----------
    total : int
        Steps until the end, such as ``max_iter``.
    label : str, default "fit"
        Word before the bar.
    rows : int, default 0
        Rows that an iteration of a fit reads. The bar then counts rows; else steps.
    stream : text file, optional
        Where to draw; the standard error stream if not given.

    Returns
    -------
    ProgressBar
        To be given as ``callback``. It draws nothing where the stream is no terminal.

    Examples
    --------
    >>> from fastgmm.progress import progress_bar
    >>> with progress_bar(100) as bar:
    ...     bar.update(1)
    """
    stream = sys.stderr if stream is None else stream
    if stream is None or not stream.isatty():  # pythonw has no streams
        return ProgressBar()
    count, unit = (rows * (total + 1), " rows") if rows else (total, "")
    try:
        from tqdm import tqdm
    except ImportError:
        return ProgressBar(_Line(count, label, unit, stream), rows)
    options = {"unit": unit, "unit_scale": True, "bar_format": FORMAT} if rows else {}
    return ProgressBar(tqdm(total=count, desc=label, file=stream, delay=DELAY, leave=False, **options), rows)


class _Line:
    """A line that is written over and over; stands in for tqdm's bar."""

    def __init__(self, total: float, label: str, unit: str, stream: TextIO) -> None:
        self.n: float = 0
        self._total, self._label, self._unit, self._stream = total, label, unit, stream
        self._text = ""
        self._begun = time.monotonic()
        self._next = self._begun + DELAY
        self._width = 0

    def update(self, n: float) -> None:
        """Add `n` steps, and draw if it is time."""
        self.n += n
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._draw(now - self._begun)

    def reset(self) -> None:
        """Begin anew."""
        self.n, self._begun = 0, time.monotonic()

    def set_postfix_str(self, s: str, refresh: bool) -> None:  # noqa: ARG002 - tqdm's signature
        """Set the words at the end."""
        self._text = s

    def close(self) -> None:
        """Wipe the line."""
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()

    def _draw(self, seconds: float) -> None:
        rate = self.n / max(seconds, 1e-9)
        left = (self._total - self.n) / rate if rate > 0.0 else 0.0
        speed = f", {_short(rate)}{self._unit}/s" if self._unit else ""
        line = (
            f"{self._label}: {self.n / max(self._total, 1):4.0%}  {_clock(seconds)}, at most {_clock(left)} left{speed}"
            f"{', ' * bool(self._text)}{self._text}"
        )[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r{line.ljust(self._width)}")
        self._stream.flush()
        self._width = len(line)


def _short(number: float) -> str:
    """Write a number with three digits and a k, M or G."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000.0
    return f"{number:.3g}G"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
