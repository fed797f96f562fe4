"""`zproxy bpf dump pods|conns|tuples|udp|stats|maps`: decoded, and joined with the mesh where a daemon is.

The maps are read as they are pinned, so no daemon is needed. One that runs adds the names of workloads.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
from zproxy_cli import udp
from zproxy_cli.age import age
from zproxy_cli.listing import workload_names
from zproxy_cli.output import Column, Row, note, output_option, print_rows, say
from zproxy_cli.session import Session, node_option, pass_session

from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.steering import decoded
from zproxy.steering.decoded import NodeMaps
from zproxy.steering.handles import pinned_nodes
from zproxy.steering.probe import may_read_maps

CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"
"""What clear(1) sends: cursor home, screen and scrollback empty."""
_Command = TypeVar("_Command", bound=Callable[..., Any])

PODS: Final = (
    Column("POD", "pod"),
    Column("NETNS-COOKIE", "netns_cookie"),
    Column("ADDRESS", "ips"),
    Column("OUTBOUND", "outbound_port"),
    Column("INBOUND", "plaintext_port"),
    Column("HBONE", "hbone_port"),
    Column("DNS", "dns"),
    Column("UDP", "udp"),
    Column("FAIL-OPEN", "fail_open"),
    Column("OPEN", "open"),
    Column("SLOT", "slot", is_wide=True),
    Column("LISTENER", "listener_cookie", is_wide=True),
    Column("GENERATION", "generation", is_wide=True),
    Column("SOURCE-PORTS", "source_ports", is_wide=True),
    Column("COUNTERS", "counters", is_wide=True),
    Column("UID", "uid", is_wide=True),
)
CONNS: Final = (
    Column("POD", "pod"),
    Column("SOURCE", "src"),
    Column("DESTINATION", "dst"),
    Column("WORKLOAD", "workload"),
    Column("AGE", "age"),
    Column("SOCKET-COOKIE", "socket_cookie", is_wide=True),
    Column("NETNS-COOKIE", "netns_cookie", is_wide=True),
)
TUPLES: Final = (
    Column("POD", "pod"),
    Column("SOURCE", "src"),
    Column("VIA", "via"),
    Column("DESTINATION", "dst"),
    Column("WORKLOAD", "workload"),
    Column("NETNS-COOKIE", "netns_cookie", is_wide=True),
)
STATS: Final = (
    Column("REASON", "reason"),
    Column("COUNT", "count"),
    Column("CPUS", "cpus", is_wide=True),
    Column("MEANING", "meaning", is_wide=True),
)
MAPS: Final = (
    Column("MAP", "map"),
    Column("ENTRIES", "entries"),
    Column("MAX-ENTRIES", "max_entries"),
    Column("USED%", "percent"),
)


@click.group(name="dump")
def command() -> None:
    """Read zproxy's maps with names, addresses and ages; needs no daemon."""


def _view(
    name: str, read: Callable[[NodeMaps], list[dict[str, Any]]], columns: tuple[Column, ...], text: str
) -> None:
    """Add one view to the group."""

    @command.command(name, help=text)
    @click.option(
        "-w",
        "--watch",
        type=click.FloatRange(min=0.1),
        is_flag=False,
        flag_value=1.0,
        metavar="[SECONDS]",
        help="Show it again and again, every second if nothing else is said, until interrupted.",
    )
    @output_option
    @node_option
    @pass_session
    def show(session: Session, /, output: str, watch: float | None) -> None:
        _print(session, read, columns, output)
        with _interruptible():
            while watch is not None:
                time.sleep(watch)
                say(CLEAR if sys.stdout.isatty() else "")
                _print(session, read, columns, output)


_view("pods", decoded.pods, PODS, "Pods that are steered now, and what they do.")
_view("conns", decoded.conns, CONNS, "Steered client connections that are open.")
_view("tuples", decoded.tuples, TUPLES, "Flows on their way from the app to the straw.")
_view("udp", lambda maps: udp.rows(maps.node), udp.COLUMNS, "UDP that leaves pods in the clear.")
_view("stats", decoded.stats, STATS, "How often the programs decided what; -o wide says what it means.")
_view("maps", decoded.occupancy, MAPS, "How full the maps are that forget their oldest entry.")


def _print(
    session: Session,
    read: Callable[[NodeMaps], list[dict[str, Any]]],
    columns: tuple[Column, ...],
    output: str,
) -> None:
    if not may_read_maps():
        raise RequirementError("reading BPF maps needs root (CAP_SYS_ADMIN): run the same command with sudo")
    nodes = [session.node_name] if session.node_name else pinned_nodes(PIN_ROOT)
    rows: list[Row] = []
    for node in nodes:
        names = workload_names(node) if any(column.key == "workload" for column in columns) else {}
        try:
            with decoded.opened(node, PIN_ROOT) as maps:
                rows += [_finished(row, node, names, len(nodes) > 1) for row in read(maps)]
        except SteeringError as error:
            if len(nodes) == 1:
                raise
            note(f"Warning: node {node} is left out: {error}")
    shown = (Column("NODE", "node"), *columns) if len(nodes) > 1 else columns
    nothing = "Nothing to show." if nodes else "No node has maps pinned here; `zproxy run` makes them."
    print_rows(rows, shown, output, nothing=nothing)


def _finished(row: dict[str, Any], node: str, names: dict[str, str], is_one_of_many: bool) -> Row:
    """Add what people see: the workload behind an address, ages as kubectl prints them."""
    if "dst_ip" in row:
        row["workload"] = names.get(row["dst_ip"])
    if "age_s" in row:
        row["age"] = age(row["age_s"])
    if "counters" in row:
        row["open"] = row["counters"]["open"]
    return {"node": node} | row if is_one_of_many else row


@contextmanager
def _interruptible() -> Iterator[None]:
    """End a watch by ^C as a command that has done its work."""
    try:
        yield
    except KeyboardInterrupt:
        note("")
