"""`zproxy workloads`: what the mesh knows, in the columns of `istioctl ztunnel-config workloads`."""

import click
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POD NAME", "name"),
    Column("ADDRESS", "address"),
    Column("NODE", "node"),
    Column("WAYPOINT", "waypoint", nothing="None"),
    Column("PROTOCOL", "protocol"),
    Column("ENROLLED", "enrolled"),
    Column("STATUS", "status", is_wide=True),
    Column("IDENTITY", "identity", is_wide=True),
    Column("NETWORK", "network", is_wide=True),
    Column("SERVICES", "services", is_wide=True),
    Column("POLICIES", "policies", is_wide=True),
    Column("WAYPOINT ADDRESS", "waypoint_address", is_wide=True),
    Column("GATEWAY ADDRESS", "gateway_address", is_wide=True),
    Column("UID", "uid", is_wide=True),
)


@click.command(name="workloads")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List the workloads of the mesh; ENROLLED says which are pods of a daemon on this machine."""
    merged: dict[str, dict[str, object]] = {}
    for client in session.clients():
        for row in client.call("workloads"):
            known = merged.setdefault(row["uid"], row)
            known["enrolled"] = known["enrolled"] or row["enrolled"]
    print_rows(list(merged.values()), COLUMNS, output, nothing="The mesh has no workloads.")
