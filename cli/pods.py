"""`zproxy pods`: the pods that are enrolled here."""

import click
from zproxy_cli.listing import print_listing
from zproxy_cli.output import Column, output_option
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("NAMESPACE", "namespace"),
    Column("NAME", "name"),
    Column("ADDRESS", "ips"),
    Column("NODE", "node"),
    Column("STATE", "state"),
    Column("IDENTITY", "identity"),
    Column("REASON", "reason"),
    Column("NETNS", "netns", is_wide=True),
    Column("LISTENERS", "listeners", is_wide=True),
    Column("DNS", "dns", is_wide=True),
    Column("UDP", "udp", is_wide=True),
    Column("FAIL-OPEN", "fail_open", is_wide=True),
    Column("ATTACH", "attach", is_wide=True),
    Column("CGROUP", "cgroup", is_wide=True),
    Column("CGROUP-WHY", "cgroup_why", is_wide=True),
    Column("WORKER", "worker", is_wide=True),
    Column("PID", "pid", is_wide=True),
    Column("SINCE", "since", is_wide=True),
)


@click.command(name="pods")
@output_option
@node_option
@pass_session
def command(session: Session, output: str) -> None:
    """List enrolled pods, and those that are refused until somebody mends the reason."""
    print_listing(session, "pods", COLUMNS, output, "No pods are enrolled; `zproxy enroll POD` takes one in.")
