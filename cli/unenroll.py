"""`zproxy unenroll POD`: let a pod out of the mesh."""

import click
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (Column("POD", "pod"), Column("STATE", "state"), Column("ADDRESS", "ips"), Column("NODE", "node"))


@click.command(name="unenroll")
@click.argument("pod", metavar="POD")
@output_option
@node_option
@pass_session
def command(session: Session, pod: str, output: str) -> None:
    """Let POD (NAMESPACE/NAME) out of the mesh; connections that zproxy carries for it end."""
    print_rows([session.client_for(pod).call("unenroll", pod=pod)], COLUMNS, output)
