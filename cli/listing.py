"""What the listing commands have in common: ask every daemon that is meant, print the rows together."""

from collections.abc import Sequence
from typing import Any

from zproxy_cli.output import Column, Row, print_rows
from zproxy_cli.session import Session


def rows_of(session: Session, command: str) -> list[dict[str, Any]]:
    """Return the rows of `command` from the chosen daemon, or from all that run on this machine.

    With several daemons each row says whose it is.
    """
    clients = session.clients()
    return [
        row if len(clients) == 1 else {"node": client.node} | row
        for client in clients
        for row in client.call(command)
    ]


def print_listing(
    session: Session, command: str, columns: Sequence[Column], output: str, nothing: str
) -> None:
    """Print the rows of `command`, with a column for the node where there are several daemons."""
    rows: Sequence[Row] = rows_of(session, command)
    shown = list(columns)
    if len(session.clients()) > 1 and all(column.key != "node" for column in columns):
        shown.insert(0, Column("NODE", "node"))
    print_rows(rows, shown, output, nothing=nothing)
