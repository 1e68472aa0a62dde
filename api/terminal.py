"""What all commands share: errors in one line, tables, JSON."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from kneepoint.tasks.errors import InputError, KneepointError

INTERRUPTED = 130
"""Exit code of what Ctrl-C has ended."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print the same facts as JSON, and nothing else.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of one inference.")]

_state = {"debug": False}
_Command = TypeVar("_Command", bound=Callable[..., None])


def show_tracebacks(shown: bool) -> None:
    """Whether an error shows where it came from, beside its line."""
    _state["debug"] = shown


def reported(command: _Command) -> _Command:
    """Turn errors into one line on standard error and an exit code: 2 for bad input, 1 for a failed job."""

    @functools.wraps(command)
    def wrapper(*args: Any, **keywords: Any) -> None:
        try:
            command(*args, **keywords)
        except KeyboardInterrupt:
            say("interrupted; nothing is lost: 'kneepoint resume DIR' goes on")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:  # the last place to catch anything; --debug shows where it came from
            if _state["debug"]:
                traceback.print_exc()
            say(_error_line(error))
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from None

    return wrapper  # type: ignore[return-value]  # the wrapper has the command's own signature


def show(what: Any) -> None:
    """Print a line, or a table, on standard output."""
    console = Console(soft_wrap=isinstance(what, str))
    if isinstance(what, str):
        console.print(what, markup=False, highlight=False)
    else:
        console.print(what)


def show_json(content: Any) -> None:
    """Print facts on standard output."""
    print(json.dumps(content, indent=1, allow_nan=False))


def say(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr)


def _error_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return (
        f"error: {text}"
        if isinstance(error, KneepointError)
        else f"error: {type(error).__name__}: {text} (--debug shows where)"
    )
