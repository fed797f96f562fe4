"""`zproxy enroll POD`: take a pod into the mesh."""

import click
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.model.pod import UdpPolicy

COLUMNS = (
    Column("POD", "pod"),
    Column("STATE", "state"),
    Column("ADDRESS", "ips"),
    Column("NODE", "node"),
    Column("IDENTITY", "identity"),
    Column("CHANGED", "changed"),
    Column("DNS", "dns", is_wide=True),
    Column("UDP", "udp", is_wide=True),
    Column("FAIL-OPEN", "fail_open", is_wide=True),
    Column("ATTACH", "attach", is_wide=True),
    Column("CGROUP", "cgroup", is_wide=True),
    Column("CGROUP-WHY", "cgroup_why", is_wide=True),
    Column("NETNS", "netns", is_wide=True),
    Column("LISTENERS", "listeners", is_wide=True),
)


@click.command(name="enroll")
@click.argument("pod", metavar="POD")
@click.option(
    "--netns", metavar="NAME|PATH", help="The pod's network namespace; default: named NAMESPACE-NAME."
)
@click.option("--pid", type=click.IntRange(min=1), help="A process inside the pod, instead of --netns.")
@click.option(
    "--cgroup",
    metavar="PATH",
    help="The pod's own cgroup (v2); default: looked for by the processes that are in the pod.",
)
@click.option("--service-account", metavar="SA", help="Identity to use instead of the workload's own.")
@click.option("--dns/--no-dns", default=None, help="Bring the pod's DNS to its straw, or leave it alone.")
@click.option(
    "--udp",
    type=click.Choice([policy.value for policy in UdpPolicy]),
    help="Record UDP that leaves in the clear (the default), or drop it.",
)
@click.option(
    "--fail-open/--fail-closed",
    default=None,
    help="Let traffic pass in the clear while no daemon lives, or refuse it (the default).",
)
@output_option
@node_option
@pass_session
def command(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    /,
    pod: str,
    netns: str | None,
    pid: int | None,
    service_account: str | None,
    output: str,
    *,
    cgroup: str | None,
    **options: bool | str | None,
) -> None:
    """Take POD (NAMESPACE/NAME) into the mesh: listeners inside it, its TCP steered to them.

    Running connections are left alone; doing it again changes nothing but the options that are given.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    client = session.client_for(pod)
    row = client.call(
        "enroll",
        pod=pod,
        netns=netns,
        pid=pid,
        service_account=service_account,
        options=chosen,
        cgroup=cgroup,
    )
    print_rows([row], COLUMNS, output)
