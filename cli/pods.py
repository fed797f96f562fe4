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
    Column("SANDBOX", "sandbox", is_wide=True),
    Column("WORKER", "worker", is_wide=True),
    Column("PID", "pid", is_wide=True),
    Column("SINCE", "since", is_wide=True),
)


@click.command(name="pods")
@click.option("--all", "is_all", is_flag=True, help="List the container runtime's other pods as well.")
@output_option
@node_option
@pass_session
def command(session: Session, output: str, *, is_all: bool) -> None:
    """List enrolled pods, and those that are refused until somebody mends the reason.

    With --all also those that are not enrolled: ready to be, ended, unfit, or unknown to the mesh.
    """
    if is_all:
        print_listing(
            session, "candidates", COLUMNS, output, "Neither zproxy nor a container runtime has pods."
        )
        return
    print_listing(session, "pods", COLUMNS, output, "No pods are enrolled; `zproxy enroll POD` takes one in.")
