"""The only printer: tables as kubectl prints them, JSON and YAML from the same rows, and failures.

A row is a mapping with stable keys, the same ones that JSON and YAML show; a column says which key stands
under which header. Results go to stdout, everything said about them to stderr.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

import click

GAP: Final = "   "
NOTHING: Final = "-"
"""Stands in a table for a value that there is not."""
FORMATS: Final = ("table", "wide", "json", "yaml")

Row: TypeAlias = Mapping[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Column(NamedTuple):
    """A column of a table."""

    header: str
    """In capitals."""
    key: str
    is_wide: bool = False
    """Shown by `-o wide` only."""
    nothing: str = NOTHING
    """Stands in this column for a value that there is not."""


def output_option(command: _Command) -> _Command:
    """Give a command the option -o, passed on as `output`."""
    text = "How to print: a table, a wider one, JSON or YAML."
    option = click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help=text)
    return option(command)


def print_rows(
    rows: Sequence[Row], columns: Sequence[Column], output: str = "table", *, nothing: str = ""
) -> None:
    """Print rows in one of FORMATS. An empty table is the sentence `nothing` on stderr instead."""
    if output == "json":
        click.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
    elif output == "yaml":
        click.echo(_yaml([dict(row) for row in rows]), nl=False)
    elif rows or not nothing:
        click.echo(table(rows, columns, is_wide=output == "wide"), nl=False)
    else:
        note(nothing)


def print_value(value: Mapping[str, Any], output: str) -> None:
    """Print something that is no list of rows, as `json` or `yaml`."""
    text = _yaml(value) if output == "yaml" else json.dumps(value, indent=2, default=str) + "\n"
    click.echo(text, nl=False)


def table(rows: Sequence[Row], columns: Sequence[Column], *, is_wide: bool = False) -> str:
    """Return rows as lines: columns as wide as their widest cell, three spaces between, none at the end."""
    shown = [column for column in columns if is_wide or not column.is_wide]
    lines = [
        [column.header for column in shown],
        *([cell(row.get(c.key), c.nothing) for c in shown] for row in rows),
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = (GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def cell(value: Any, nothing: str = NOTHING) -> str:
    """Return a value as it stands in a table; `nothing` for one that there is not."""
    if value is None or (isinstance(value, str | list | tuple) and not value):
        return nothing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={cell(part)}" for key, part in value.items())
    return str(value)


def say(text: str = "") -> None:
    """Print a line of a result that is no table."""
    click.echo(text)


def note(sentence: str) -> None:
    """Tell a person something that is no result."""
    click.echo(sentence, err=True)


def write(text: str) -> None:
    """Write text as it is; bytes that are no UTF-8, in a pin's name for instance, come out unchanged."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def flush() -> None:
    """Hand over what `write` has kept, so that something on stderr may follow."""
    sys.stdout.buffer.flush()


def fail(sentence: str, exit_code: int = 1) -> NoReturn:
    """End the command with one sentence on stderr."""
    note(f"Error: {sentence}")
    raise click.exceptions.Exit(exit_code)


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
