"""The command ``fastgmm``: the library without Python.

Read `parser` first (the words), then `models`, `use` and `system` (the commands), `inputs` and `outputs` (the files).

1. A failure is one sentence on the standard error stream: what, where, what to do. Status 1 if the data or a file is at
   fault, 2 if the command line is, 0 if nothing is. FASTGMM_DEBUG=1 shows where in the code.
2. Nothing is half written: files are opened before the work and renamed into place after it.
3. The standard output carries results and nothing else, so it can be piped.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fastgmm.cli.parser import build_parser
from fastgmm.cli.wording import for_shell

__all__ = ["main"]

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # what a shell reports for Ctrl-C

COMMANDS: Final = {
    "demo": "models",
    "fit": "models",
    "select": "models",
    "predict": "use",
    "score": "use",
    "sample": "use",
    "info": "system",
    "warmup": "system",
}
"""Command -> module of this package with a function of that name; imported only when it is the one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``fastgmm``; those of this process if not given.

    Returns
    -------
    int
        Exit status: 0 success, 1 an error of data or files, 2 a wrong command line.

    Raises
    ------
    SystemExit
        From argparse: for ``--help`` (0) and for a command line that cannot be parsed (2).

    Examples
    --------
    >>> from fastgmm.cli import main
    >>> main(["info", "no-such-file.npz"])
    1
    """
    if argv is None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
                stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    command = f"fastgmm {args.command}"
    try:
        with _warnings_in_one_line(command):
            module = importlib.import_module(f"fastgmm.cli.{COMMANDS[args.command]}")
            run: Callable[[Any], None] = getattr(module, args.command)
            run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        kept = getattr(args, "checkpoint", None)
        what = "nothing was written" if kept is None else "the same command with --resume goes on with the fit"
        print(f"{command}: interrupted; {what}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough (head). Python must not complain when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if os.environ.get("FASTGMM_DEBUG") == "1":
            raise
        text, status = _explain(error)
        print(f"{command}: error: {text}", file=sys.stderr)
        return status
    return OK


def _explain(error: Exception) -> tuple[str, int]:
    """Turn an exception into one sentence and an exit status."""
    from fastgmm.errors import FastgmmError, InvalidParameterError

    text = for_shell(" ".join(str(error).split()))
    if isinstance(error, InvalidParameterError):
        return text, USAGE
    if isinstance(error, FastgmmError):
        return text, FAILURE
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}.", FAILURE
    if isinstance(error, MemoryError):
        return f"not enough memory ({text}); use a .npy file, which is read in blocks, or fewer columns.", FAILURE
    if isinstance(error, OSError):
        return f"{error.strerror or text}.", FAILURE
    return f"{type(error).__name__}: {text} (set FASTGMM_DEBUG=1 to see where).", FAILURE


@contextmanager
def _warnings_in_one_line(command: str) -> Iterator[None]:
    """Show warnings as sentences to users, not as places in our code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{command}: warning: {for_shell(' '.join(str(message).split()))}", file=sys.stderr)

    with warnings.catch_warnings():
        from fastgmm.errors import FastgmmWarning

        warnings.simplefilter("always", FastgmmWarning)
        warnings.showwarning = show
        yield
