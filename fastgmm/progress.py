"""A progress bar for long fits: tqdm's where it is installed, and nothing at all where nobody would see it.

A bar appears only after a second, so that short fits stay quiet, and only on a terminal, so that log files stay clean.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Final, Self, TextIO

from fastgmm.em import IterationInfo

__all__ = ["ProgressBar", "progress_bar"]

DELAY: Final = 1.0  # seconds before a bar appears


class ProgressBar:
    """A bar that is also the callback of a fit; made by `progress_bar`.

    Use it as a context manager, or call `close`. One bar may serve several fits in a row, as in a search: `update` is
    for those who count something else than iterations.
    """

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def __call__(self, info: IterationInfo) -> None:
        """Show an iteration of a fit; returns nothing, so it never stops one."""
        self.update(info.iteration, f"mean log-likelihood {info.lower_bound:.6g}, change {info.change:.2g}")

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
        if done < self._bar.n:
            self._bar.reset()
        self._bar.update(done - self._bar.n)

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


def progress_bar(total: int, label: str = "fit", *, stream: TextIO | None = None) -> ProgressBar:
    """Make a progress bar.

    Parameters
    ----------
    total : int
        Steps until the end, such as ``max_iter``.
    label : str, default "fit"
        Word before the bar.
    stream : text file, optional
        Where to draw; the standard error stream if not given.

    Returns
    -------
    ProgressBar
        To be given as ``callback``. It draws nothing where the stream is no terminal or tqdm is not installed.

    Examples
    --------
    >>> from fastgmm.progress import progress_bar
    >>> with progress_bar(100) as bar:
    ...     bar.update(1)
    """
    stream = sys.stderr if stream is None else stream
    if stream is None or not stream.isatty():  # pythonw has no streams
        return ProgressBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return ProgressBar()
    return ProgressBar(tqdm(total=total, desc=label, file=stream, delay=DELAY, leave=False))
