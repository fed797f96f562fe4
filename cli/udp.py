"""`zproxy udp [POD]`: UDP that leaves pods in the clear, from the maps in the kernel; no daemon is needed.

A daemon that runs adds the names of the workloads behind the addresses.
"""

import time
from typing import Any, Final

import click
from zproxy_cli.age import age
from zproxy_cli.listing import workload_names
from zproxy_cli.output import Column, output_option, print_rows
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError
from zproxy.steering.probe import may_read_maps
from zproxy.steering.udp import UdpFlow, flows

NS: Final = 1_000_000_000
COLUMNS = (
    Column("POD", "pod"),
    Column("DESTINATION", "destination"),
    Column("PORT", "port"),
    Column("WORKLOAD", "workload"),
    Column("PACKETS", "packets"),
    Column("BYTES", "bytes"),
    Column("BLOCKED", "blocked"),
    Column("FIRST", "first"),
    Column("LAST", "last"),
    Column("SERVED PORT", "served_port", is_wide=True),
    Column("NODE", "node", is_wide=True),
)


@click.command(name="udp")
@click.argument("pod", metavar="[POD]", required=False)
@output_option
@node_option
@pass_session
def command(session: Session, pod: str | None, output: str) -> None:
    """List where UDP of POD (NAMESPACE/NAME), or of all pods, went in the clear; the latest is last.

    DNS is left out. No PORT: clients of the pod's own server (-o wide shows its port), or later fragments.
    """
    if not may_read_maps():
        raise RequirementError("reading BPF maps needs root (CAP_SYS_ADMIN): run the same command with sudo")
    print_rows(rows(session.node_name, pod), COLUMNS, output, nothing="No UDP has left in the clear.")


def rows(node: str | None = None, pod: str | None = None) -> list[dict[str, Any]]:
    """Return a row per flow, of a node and a pod or of all."""
    found = flows(node, pod, PIN_ROOT)
    names = {each: workload_names(each) for each in {flow.node for flow in found}}
    now = time.monotonic_ns()
    return [_row(flow, names[flow.node], now) for flow in found]


def _row(flow: UdpFlow, names: dict[str, str], now: int) -> dict[str, Any]:
    first, last = ((now - then) / NS for then in (flow.first_ns, flow.last_ns))
    return {
        "node": flow.node,
        "pod": flow.pod,
        "destination": flow.ip,
        "port": flow.port,
        "served_port": flow.served_port,
        "workload": names.get(flow.ip),
        "packets": flow.packets,
        "bytes": flow.bytes,
        "blocked": flow.blocked,
        "first": age(first),
        "first_s": round(first, 1),
        "last": age(last),
        "last_s": round(last, 1),
    }
