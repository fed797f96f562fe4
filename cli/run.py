"""`zproxy run`: the node daemon, in the foreground."""

from collections.abc import Callable
from pathlib import Path

import click
from zproxy_cli.session import Session, pass_session

from zproxy.config import MAX_BUSY_POLL_US, MAX_WORKERS, STATE_ROOT, ZDS_SOCKET
from zproxy.errors import ConfigError
from zproxy.model.attach import Attach, ProbeMode, ProbeWish
from zproxy.model.identity import TRUST_DOMAIN, trust_domain_of
from zproxy.model.settings import (
    CLUSTER_DOMAIN,
    Balancing,
    Compat,
    OutboundPolicy,
    Settings,
    WaypointPolicy,
    domain_of,
    namespace_of,
)


def _read_by(reader: Callable[[str], str]) -> Callable[[click.Context, click.Parameter, str], str]:
    """Return a callback that puts `reader` between what was written and the command."""

    def read(_context: click.Context, _option: click.Parameter, text: str) -> str:
        try:
            return reader(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


@click.command(name="run")
@click.option("--node", metavar="NAME", help="This node's name, as workloads in the mesh have it.")
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The mesh, in ztunnel's LOCAL_XDS shape (YAML). With --kubernetes it may be left out.",
)
@click.option(
    "--kubernetes",
    is_flag=True,
    help="Take the mesh from the cluster that this node is in, and enrol the pods whose labels say so.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="How to reach the API server; without it, with what every pod of a cluster is given.",
)
@click.option(
    "--ca-dir",
    type=click.Path(path_type=Path),
    default=STATE_ROOT / "ca",
    show_default=True,
    metavar="DIR",
    help="The embedded CA; made the first time. Nodes that share it trust each other.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    show_default=True,
    metavar="N",
    help="Threads that carry the pods' traffic; each pod is served by one of them.",
)
@click.option(
    "--idle-timeout",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="End connections that move no byte for this long; 0 lets them be idle for ever.",
)
@click.option(
    "--busy-poll",
    "busy_poll_us",
    type=click.IntRange(0, MAX_BUSY_POLL_US),
    default=0,
    show_default=True,
    metavar="MICROSECONDS",
    help="Look for more traffic this long before sleeping: lower latency for a core per worker. 0 is off.",
)
@click.option(
    "--outbound-policy",
    type=click.Choice([policy.value for policy in OutboundPolicy]),
    default="allow_any",
    show_default=True,
    help="What pods may dial: anything, or nothing that the mesh does not know (it is reset and logged).",
)
@click.option(
    "--waypoint-policy",
    type=click.Choice([policy.value for policy in WaypointPolicy]),
    default=WaypointPolicy.MUST_TRAVERSE.value,
    show_default=True,
    help="Connections whose waypoint cannot be found: refused, or sent past it and its policies.",
)
@click.option(
    "--compat",
    type=click.Choice([each.value for each in Compat]),
    default=Compat.ZPROXY.value,
    show_default=True,
    help="Policies that cannot be judged deny, and pods come before ranges of services; or ztunnel's ways.",
)
@click.option(
    "--load-balancing",
    type=click.Choice([each.value for each in Balancing]),
    default=Balancing.LEAST_REQUEST.value,
    show_default=True,
    help="How one of several equal endpoints is chosen.",
)
@click.option(
    "--outlier-ejection/--no-outlier-ejection",
    default=True,
    show_default=True,
    help="Leave out endpoints for a while that could not be reached.",
)
@click.option(
    "--connect-retries",
    type=click.IntRange(0, 5),
    default=1,
    show_default=True,
    metavar="N",
    help="Other endpoints of a service that are tried when one cannot be reached.",
)
@click.option(
    "--trust-labels",
    is_flag=True,
    help="Believe the labels that any peer claims in its baggage, not only gateways and waypoints.",
)
@click.option(
    "--cluster-domain",
    default=CLUSTER_DOMAIN,
    show_default=True,
    callback=_read_by(domain_of),
    metavar="NAME",
    help="What the names of the cluster's services end in.",
)
@click.option(
    "--preferred-service-namespace",
    default="",
    callback=_read_by(namespace_of),
    metavar="NS",
    help="Whose service DNS prefers when several have one hostname and none is the client's or canonical.",
)
@click.option(
    "--attach",
    type=click.Choice([each.value for each in Attach]),
    default=Attach.BOTH.value,
    show_default=True,
    help="Where the connect programs hang: the cgroup root, each pod's own cgroup, or both.",
)
@click.option(
    "--cgroup-root",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The node's root cgroup, where the node is itself a container, as in kind. Default: the machine's.",
)
@click.option(
    "--probe-mode",
    type=click.Choice([mode.value for mode in ProbeMode]),
    help="How probes are known, which reach pods in the clear: by kubelet's cgroup (the default where it is "
    "found), by the node's addresses, or not at all.",
)
@click.option("--kubelet-cgroup", metavar="PATH", help="Kubelet's cgroup, where it is not found by itself.")
@click.option(
    "--node-ip",
    "node_ips",
    multiple=True,
    metavar="ADDR",
    help="An address that probes come from with --probe-mode node-ip; repeatable. Default: the host's.",
)
@click.option(
    "--reconcile-interval",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How often every pod is compared with what the kernel has, and repaired.",
)
@click.option(
    "--zds",
    is_flag=False,
    flag_value=ZDS_SOCKET,
    default="",
    metavar="[PATH]",
    help=f"Take the pods that istio-cni hands over, as ztunnel does; PATH is its socket, {ZDS_SOCKET} if "
    "none is given.",
)
@click.option(
    "--steering",
    type=click.Choice(["ebpf", "external"]),
    default="ebpf",
    show_default=True,
    help="What brings pods' traffic to the proxy: eBPF programs, or the rules that istio-cni puts into pods.",
)
@click.option(
    "--trust-domain",
    default=TRUST_DOMAIN,
    show_default=True,
    callback=_read_by(trust_domain_of),
    metavar="NAME",
    help="Of pods that are handed over before the mesh knows them.",
)
@click.option(
    "--cri-endpoint",
    metavar="PATH|none",
    help="The container runtime's socket; default: containerd's, CRI-O's or k3s's, where there is one.",
)
@pass_session
def command(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    *,
    node: str | None,
    config: Path | None,
    kubernetes: bool,
    kubeconfig: Path | None,
    ca_dir: Path,
    workers: int,
    idle_timeout: int,
    busy_poll_us: int,
    outbound_policy: str,
    waypoint_policy: str,
    compat: str,
    load_balancing: str,
    outlier_ejection: bool,
    connect_retries: int,
    trust_labels: bool,
    cluster_domain: str,
    preferred_service_namespace: str,
    attach: str,
    cgroup_root: Path | None,
    probe_mode: str | None,
    kubelet_cgroup: str | None,
    node_ips: tuple[str, ...],
    reconcile_interval: int,
    zds: str,
    steering: str,
    trust_domain: str,
    cri_endpoint: str | None,
) -> None:
    """Run the daemon of a node until SIGTERM; logs go to stdout.

    It takes a changed mesh file by itself; SIGHUP makes it read the file at once.
    Pods that were enrolled when the last daemon of this node ended are taken up again. More than one worker
    pays when several pods are busy at once and there are cores for them.
    """
    name = node or session.node_name
    if not name:
        raise ConfigError("which node is this? give --node NAME, as in the `node:` of its workloads")
    if steering == "external" and not zds:
        raise ConfigError("--steering external is for pods that istio-cni hands over: give --zds, too")
    if config is None and not kubernetes:
        raise click.UsageError("where is the mesh from? give --config FILE, or --kubernetes")
    if kubeconfig is not None and not kubernetes:
        raise click.UsageError("--kubeconfig says how to reach Kubernetes; give --kubernetes as well")
    from zproxy.app import Options, run

    options = Options(
        name,
        config,
        ca_dir,
        workers,
        verbose=session.verbosity > 0,
        idle_s=idle_timeout,
        busy_poll_us=busy_poll_us,
        settings=Settings(
            OutboundPolicy(outbound_policy),
            WaypointPolicy(waypoint_policy),
            Compat(compat),
            Balancing(load_balancing),
            outlier_ejection,
            connect_retries,
            trust_labels,
            cluster_domain,
            preferred_service_namespace,
        ),
        attach=Attach(attach),
        probes=ProbeWish(ProbeMode(probe_mode) if probe_mode else None, kubelet_cgroup, node_ips),
        reconcile_s=reconcile_interval,
        zds=zds,
        is_external=steering == "external",
        trust_domain=trust_domain,
        cri_endpoint=cri_endpoint,
        kubernetes=kubernetes,
        kubeconfig=kubeconfig,
        cgroup_root=cgroup_root,
    )
    run(options)
