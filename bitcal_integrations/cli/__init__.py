"""The command line `bitcal`: finds the command, runs it, turns an error into one line.

A command is a file of this folder, and only the file of the command that runs is imported; it
imports models and torch when it runs, not before. This file knows no command by name.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bitcal_integrations.errors import BitcalError
from bitcal_integrations.registry import names, resolve

__all__ = ["app", "main"]

INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


class _Commands(TyperGroup):
    """The files of this folder as commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name.replace("_", "-") for name in names("cli")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = cmd_name.replace("-", "_")
        if name not in names("cli"):
            return None
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name.replace("_", "-"))(getattr(resolve("cli", name), name))
        return get_command(single)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BitcalError as error:
            if ctx.params["debug"]:
                raise
            raise typer.Exit(_failed(error)) from None
        except (OSError, UnicodeError) as error:  # a full disk, a closed pipe, bytes for a prompt
            if ctx.params["debug"]:
                raise
            raise typer.Exit(_failed(error)) from None
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                raise
            raise typer.Exit(_interrupted()) from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from bitcal_integrations import __version__

        typer.echo(f"bitcal {__version__}")
        raise typer.Exit


@app.callback()
def _bitcal(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run quantized models locally, with a confidence for every answer."""


def _failed(error: Exception) -> int:
    typer.echo("error: " + " ".join(str(error).split()), err=True)
    return 1


def _interrupted() -> int:
    typer.echo("\ninterrupted", err=True)
    return INTERRUPTED


def main(arguments: list[str] | None = None) -> None:
    """Run `bitcal` with these arguments (those of the process by default) and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a terminal cannot show becomes a question mark
            stream.reconfigure(errors="replace")
    try:
        get_command(app)(args=arguments, prog_name="bitcal")
    except KeyboardInterrupt:
        sys.exit(_interrupted())
