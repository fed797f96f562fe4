"""`zproxy enroll POD`: take a pod into the mesh."""

import click
from zproxy_cli.completion import candidates
from zproxy_cli.output import Column, note, output_option, print_rows
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
@click.argument("pod", metavar="POD", required=False, shell_complete=candidates)
@click.option(
    "--netns",
    metavar="NAME|PATH",
    help="The pod's network namespace; default: the container runtime says, else named NAMESPACE-NAME.",
)
@click.option("--pid", type=click.IntRange(min=1), help="A process inside the pod, instead of --netns.")
@click.option("--pod-uid", metavar="UID", help="The pod's uid, where the runtime has several of one name.")
@click.option("--container", metavar="ID", help="A container of the pod; then POD may be left out.")
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
    pod: str | None,
    netns: str | None,
    pid: int | None,
    service_account: str | None,
    output: str,
    *,
    cgroup: str | None,
    pod_uid: str | None,
    container: str | None,
    **options: bool | str | None,
) -> None:
    """Take POD (NAMESPACE/NAME) into the mesh: listeners inside it, its TCP steered to them.

    Where it is the container runtime knows; a namespace of your own is named by --netns or --pid.
    Running connections are left alone; doing it again changes nothing but the options that are given.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    if pod is None and pod_uid is None and container is None:
        raise click.UsageError("Missing argument 'POD': NAMESPACE/NAME; or give --container or --pod-uid.")
    client = session.client_for(pod)
    row = client.call(
        "enroll",
        pod=pod,
        netns=netns,
        pid=pid,
        service_account=service_account,
        options=chosen,
        cgroup=cgroup,
        pod_uid=pod_uid,
        container=container,
    )
    print_rows([row], COLUMNS, output)
    for warning in row.get("warnings", ()):
        note(f"Warning: {warning}.")
