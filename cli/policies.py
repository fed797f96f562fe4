"""`zproxy policies`: what the mesh knows, in the columns of `istioctl ztunnel-config policies`."""

import click
from zproxy_cli.listing import print_mesh
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("POLICY NAME", "name"),
    Column("ACTION", "action"),
    Column("SCOPE", "scope"),
    Column("DRY RUN", "dry_run", is_wide=True),
    Column("RULES", "rules_count", is_wide=True),
    Column("SELECTED BY", "selected_by", is_wide=True),
    Column("DEFECT", "defect", is_wide=True),
)


@click.command(name="policies")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List the authorization policies of the mesh; -o json and yaml show their rules.

    SELECTED BY counts the workloads that name a policy. One with a DEFECT denies what it applies to.
    """
    print_mesh(session, "policies", COLUMNS, output, nothing="The mesh has no policies.")
