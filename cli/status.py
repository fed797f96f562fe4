"""`zproxy status [POD]`: nodes and pods as the kernel has them. Exit status 1 when something is amiss."""

import click
from zproxy_cli.output import Column, note, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

BAD = ("missing", "drifted")
COLUMNS = (
    Column("NODE", "node", is_wide=True),
    Column("CHECK", "check"),
    Column("STATUS", "status"),
    Column("DETAIL", "detail"),
    Column("REMEDY", "remedy"),
)


@click.command(name="status")
@click.argument("pod", metavar="[POD]", required=False)
@output_option
@node_option
@pass_session
@click.pass_context
def command(context: click.Context, session: Session, pod: str | None, output: str) -> None:
    """Compare nodes and pods, or every detail of POD (NAMESPACE/NAME), with what the kernel has.

    Needs no daemon; a living one is asked how it stands with istio-cni, and nothing else. Exit status 1 when
    something is missing or has drifted.
    """
    from zproxy.node.present import nodes
    from zproxy.node.status import look

    names = [session.node_name] if session.node_name else nodes()
    if not names:
        note("No node is on this machine: no pins, no records; `zproxy run` makes one.")
        context.exit(1)
    rows = look(names, pod)
    columns = COLUMNS if pod else (COLUMNS[0]._replace(is_wide=False), Column("POD", "pod"), *COLUMNS[1:])
    print_rows(rows, columns, output)
    if any(row["status"] in BAD for row in rows):
        context.exit(1)
