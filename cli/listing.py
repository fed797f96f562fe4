"""What the listing commands have in common: ask every daemon that is meant, print the rows together."""

import json
from collections.abc import Sequence

from zproxy_cli.output import Column, Row, print_rows
from zproxy_cli.session import Session

from zproxy.errors import ZproxyError


def print_listing(
    session: Session, command: str, columns: Sequence[Column], output: str, nothing: str
) -> None:
    """Print the rows of `command` from the chosen daemon, or from all that run on this machine.

    With several daemons each row says whose it is, in a column of its own where there is none yet.
    """
    clients = session.clients()
    rows: list[Row] = []
    for client in clients:
        whose = {"node": client.node} if len(clients) > 1 else {}
        rows += [whose | row for row in client.call(command)]
    shown = list(columns)
    if len(clients) > 1 and all(column.key != "node" for column in columns):
        shown.insert(0, Column("NODE", "node"))
    print_rows(rows, shown, output, nothing=nothing)


def print_mesh(session: Session, command: str, columns: Sequence[Column], output: str, nothing: str) -> None:
    """Print the rows of `command`, which is about the mesh: what daemons agree about, once."""
    rows: dict[str, Row] = {}
    for client in session.clients():
        for row in client.call(command):
            rows.setdefault(json.dumps(row), row)
    print_rows(list(rows.values()), columns, output, nothing=nothing)


def workload_names(node: str) -> dict[str, str]:
    """Return address → namespace/name as the node's daemon knows it; nothing where none answers."""
    from zproxy.node import client

    try:
        rows = client.Client(node).call("workloads")
    except ZproxyError:
        return {}
    return {ip: f"{row['namespace']}/{row['name']}" for row in rows for ip in row["address"]}
