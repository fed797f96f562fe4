"""`zproxy tunnels`: HBONE tunnels and how many streams each carries."""

import click
from zproxy_cli.listing import print_listing
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("ID", "id"),
    Column("POD", "pod"),
    Column("ROLE", "role"),
    Column("STATE", "state"),
    Column("LOCAL", "local"),
    Column("REMOTE", "remote"),
    Column("STREAMS", "streams"),
    Column("TOTAL", "streams_total"),
    Column("SENT", "bytes_sent"),
    Column("RECV", "bytes_recv"),
    Column("AGE", "age_s"),
    Column("TLS", "tls", is_wide=True),
    Column("ALPN", "alpn", is_wide=True),
    Column("WORKER", "worker", is_wide=True),
    Column("SRC IDENTITY", "src_identity", is_wide=True),
    Column("DST IDENTITY", "dst_identity", is_wide=True),
)


@click.command(name="tunnels")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List tunnels: one per source identity, destination identity, source IP and peer, never per port."""
    print_listing(session, "tunnels", COLUMNS, output, "No tunnels: nothing was dialled between pods yet.")
