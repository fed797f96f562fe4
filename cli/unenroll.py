"""`zproxy unenroll POD`: let a pod out of the mesh."""

from typing import TYPE_CHECKING

import click
from zproxy_cli.completion import enrolled
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.errors import ConfigError

if TYPE_CHECKING:
    from zproxy.node.present import Site

COLUMNS = (Column("POD", "pod"), Column("STATE", "state"), Column("ADDRESS", "ips"), Column("NODE", "node"))
STEPS = (
    Column("NODE", "node"),
    Column("KIND", "kind"),
    Column("WHAT", "what"),
    Column("RESULT", "result"),
)


@click.command(name="unenroll")
@click.argument("pod", metavar="POD", shell_complete=enrolled)
@click.option("--force", is_flag=True, help="Where no daemon lives: take it out from pins and records alone.")
@output_option
@node_option
@pass_session
@click.pass_context
def command(context: click.Context, session: Session, *, pod: str, force: bool, output: str) -> None:
    """Let POD (NAMESPACE/NAME) out of the mesh; connections that zproxy carries for it end."""
    site = _abandoned(session, pod) if force else None
    if site is None:
        print_rows([session.client_for(pod).call("unenroll", pod=pod)], COLUMNS, output)
        return
    from zproxy.node.cleanup import unenroll

    rows = [done._asdict() for done in unenroll(site, pod)]
    print_rows(rows, STEPS, output)
    if any(row["result"].startswith("failed") for row in rows):
        context.exit(1)


def _abandoned(session: Session, pod: str) -> "Site | None":
    """Return the node without a daemon that has something of `pod`, None when a daemon is to be asked."""
    from zproxy.node.present import Site, nodes

    sites = [Site(name) for name in ([session.node_name] if session.node_name else nodes())]
    found = []
    for site in sites:
        with site.opened() as (inspector, _, _):
            if any(known.name == pod for known in site.pods(inspector)):
                found.append(site)
    if not found:
        names = " or ".join(site.node for site in sites) or "any node"
        raise ConfigError(f"{pod} is not enrolled on {names}: no record, map or pin has it")
    if len(found) > 1:
        names = " and ".join(site.node for site in found)
        raise ConfigError(f"{names} have something of {pod}: choose one with --node")
    if found[0].daemon() is None:
        return found[0]
    session.node_name = found[0].node
    return None
