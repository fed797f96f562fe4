"""`zproxy connections`: connections that are open, and the last that ended, with why."""

import click
from zproxy_cli.listing import print_listing
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("ID", "id"),
    Column("POD", "pod"),
    Column("DIRECTION", "direction"),
    Column("STATE", "state"),
    Column("SRC", "src"),
    Column("DST", "dst"),
    Column("HBONE ADDR", "hbone_addr"),
    Column("SENT", "bytes_sent"),
    Column("RECV", "bytes_recv"),
    Column("MS", "duration_ms"),
    Column("TUNNEL", "tunnel", is_wide=True),
    Column("SRC IDENTITY", "src_identity", is_wide=True),
    Column("DST IDENTITY", "dst_identity", is_wide=True),
    Column("REASON", "reason"),
    Column("ERROR", "error"),
)


@click.command(name="connections")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List connections, oldest first; ERROR says in a sentence why one failed."""
    print_listing(session, "connections", COLUMNS, output, "No connections yet.")
