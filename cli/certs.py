"""`zproxy certs`: certificates, in the columns of `istioctl ztunnel-config certificates`."""

import click
from zproxy_cli.listing import print_listing
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("CERTIFICATE NAME", "identity"),
    Column("TYPE", "type"),
    Column("STATUS", "status"),
    Column("VALID CERT", "valid"),
    Column("SERIAL NUMBER", "serial"),
    Column("NOT AFTER", "not_after"),
    Column("NOT BEFORE", "not_before"),
)


@click.command(name="certs")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List the certificates of enrolled pods and the roots that they trust. Keys are never shown."""
    print_listing(session, "certs", COLUMNS, output, "No certificates: no pod is enrolled.")
