"""`zproxy cleanup`: remove everything that a node left on this machine, without a daemon."""

import click
from zproxy_cli.output import Column, note, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError

COLUMNS = (
    Column("NODE", "node"),
    Column("KIND", "kind"),
    Column("WHAT", "what"),
    Column("RESULT", "result"),
)


@click.command(name="cleanup")
@click.option("--all", "is_all", is_flag=True, help="Every node of this machine, not one.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@output_option
@node_option
@pass_session
@click.pass_context
def command(context: click.Context, session: Session, *, is_all: bool, dry_run: bool, output: str) -> None:
    """Remove pins, links, rules, routes and records of a node, and give its pods their sysctls back.

    Refused while a daemon of the node is alive. Certificates are kept: other nodes may trust them.
    """
    from zproxy.node.cleanup import cleanup, refuse_living
    from zproxy.node.present import Site, nodes

    sites = [Site(name) for name in _chosen(session, nodes(), is_all=is_all)]
    refuse_living(sites)
    rows = [done._asdict() for site in sites for done in cleanup(site, dry_run=dry_run)]
    if not rows:
        note("Nothing of zproxy is on this machine.")
        return
    print_rows(rows, COLUMNS, output)
    if any(row["result"].startswith("failed") for row in rows):
        context.exit(1)


def _chosen(session: Session, present: list[str], *, is_all: bool) -> list[str]:
    if is_all and session.node_name:
        raise ConfigError("give --node or --all, not both")
    if session.node_name:
        if session.node_name not in present:
            listed = f"; there is {', '.join(present)}" if present else ""
            raise ConfigError(f"nothing of a node {session.node_name} is on this machine{listed}")
        return [session.node_name]
    if len(present) > 1 and not is_all:
        raise ConfigError(f"several nodes are here: choose {' or '.join(present)} with --node, or --all")
    return present
