"""`zproxy endpoints`: what balancing goes by, connections and failures of endpoints."""

import click
from zproxy_cli.listing import print_listing
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("ENDPOINT", "endpoint"),
    Column("SERVICES", "services"),
    Column("PORT", "port", nothing="all"),
    Column("CONNECTIONS", "connections"),
    Column("FAILURES", "failures"),
    Column("LEFT OUT", "ejected_s"),
    Column("WORKER", "worker", is_wide=True),
    Column("UID", "uid", is_wide=True),
)


@click.command(name="endpoints")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List endpoints that have connections of this node or could not be reached lately, for each worker.

    FAILURES are in a row; LEFT OUT is for how many seconds more the endpoint, or that PORT of it, is not
    chosen while others can be.
    """
    nothing = "No endpoint has connections of this node, and none has failed."
    print_listing(session, "endpoints", COLUMNS, output, nothing)
