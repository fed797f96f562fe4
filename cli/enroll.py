"""`zproxy enroll POD`: take a pod into the mesh."""

import click
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

COLUMNS = (
    Column("POD", "pod"),
    Column("STATE", "state"),
    Column("ADDRESS", "ips"),
    Column("NODE", "node"),
    Column("IDENTITY", "identity"),
    Column("CHANGED", "changed"),
    Column("NETNS", "netns", is_wide=True),
    Column("LISTENERS", "listeners", is_wide=True),
)


@click.command(name="enroll")
@click.argument("pod", metavar="POD")
@click.option(
    "--netns", metavar="NAME|PATH", help="The pod's network namespace; default: named NAMESPACE-NAME."
)
@click.option("--pid", type=click.IntRange(min=1), help="A process inside the pod, instead of --netns.")
@click.option("--service-account", metavar="SA", help="Identity to use instead of the workload's own.")
@output_option
@node_option
@pass_session
def command(
    session: Session, pod: str, netns: str | None, pid: int | None, service_account: str | None, output: str
) -> None:
    """Take POD (NAMESPACE/NAME) into the mesh: listeners inside it, its TCP steered to them.

    Running connections are left alone; doing it again changes nothing.
    """
    client = session.client_for(pod)
    row = client.call("enroll", pod=pod, netns=netns, pid=pid, service_account=service_account)
    print_rows([row], COLUMNS, output)
