"""Names of pods for the shell to complete. A daemon that does not answer completes nothing, in silence."""

from collections.abc import Iterable

import click
from zproxy_cli.output import Row
from zproxy_cli.session import Session

from zproxy.errors import ZproxyError


def enrolled(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the pods that can be unenrolled."""
    return _names(_rows(context, "pods"), incomplete)


def candidates(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the pods that can be enrolled: the runtime's, and the mesh's on the nodes that are asked."""
    pods = _rows(context, "candidates")
    known = {row["pod"] for row in pods}
    mesh = [
        {"pod": name}
        for row in _rows(context, "workloads")
        if row["node"] == row["asked"] and (name := f"{row['namespace']}/{row['name']}") not in known
    ]
    return _names([*(row for row in pods if row["state"] == "ready"), *mesh], incomplete)


def _names(rows: Iterable[Row], incomplete: str) -> list[str]:
    return sorted({row["pod"] for row in rows if row["pod"].startswith(incomplete)})


def _rows(context: click.Context, command: str) -> list[Row]:
    """Ask each daemon that is meant; `asked` in a row is the node of the one that gave it.

    No command runs, so --node before the noun is read where the group left it.
    """
    node = context.ensure_object(Session).node_name or context.find_root().params.get("node")
    try:
        clients = Session(node).clients()
        return [{"asked": client.node} | row for client in clients for row in client.call(command)]
    except ZproxyError:
        return []
