"""`zproxy services`: what the mesh knows, in the columns of `istioctl ztunnel-config services`."""

import click
from zproxy_cli.listing import print_mesh
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("SERVICE NAME", "name"),
    Column("SERVICE VIP", "vip"),
    Column("WAYPOINT", "waypoint", nothing="None"),
    Column("ENDPOINTS", "endpoints"),
    Column("HOSTNAME", "hostname", is_wide=True),
    Column("PORTS", "ports", is_wide=True),
    Column("LOAD BALANCING", "load_balancer", is_wide=True),
    Column("VISIBILITY", "visibility", is_wide=True),
    Column("CANONICAL", "canonical", is_wide=True),
    Column("WAYPOINT ADDRESS", "waypoint_address", is_wide=True),
)


@click.command(name="services")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List the services of the mesh; ENDPOINTS are the healthy ones of all. WAYPOINT NA is not known."""
    print_mesh(session, "services", COLUMNS, output, nothing="The mesh has no services.")
