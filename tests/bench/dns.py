"""`make bench-dns`: what it costs a pod that its DNS comes to its straw first."""

import argparse
import json
import os
import shlex
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import dns.message

from tests.bench import dns_load, proc, report, session
from tests.bench.dns_load import Asker, Window
from tests.bench.load import LoadError
from tests.bench.rounds import progress
from tests.support.local_config import yaml_of
from tests.support.mesh import service, workload
from tests.support.netns import PREFIX, Namespace, pair
from tests.support.nodes import Node

PORT: Final = 53
KNOWN, UNKNOWN = "server.demo.svc.cluster.local", "www.example.com"
WIDTHS: Final = (1, 32)
"""How many queries are on their way at a time."""
WARM_S: Final = 0.1


class Kind(NamedTuple):
    """A way to ask."""

    name: str
    question: str
    protocol: socket.SocketKind = socket.SOCK_DGRAM
    is_enrolled: bool = True


DIRECT: Final = Kind("the resolver itself, without zproxy", UNKNOWN, is_enrolled=False)
KINDS: Final = (
    DIRECT,
    Kind("the same, passed on", UNKNOWN),
    Kind("a name of the mesh", KNOWN),
    Kind("a name of the mesh, TCP", KNOWN, socket.SOCK_STREAM),
)


class Line(NamedTuple):
    """Medians of all rounds; times are in microseconds."""

    kind: str
    width: int
    rate: float
    p50: float
    p99: float
    cpu: float | None
    """Of the daemon, for a query."""
    ratio: float
    """Of the rate to that of the resolver itself."""


Seen = dict[tuple[Kind, int], list[tuple[Window, float]]]
"""Windows, each with the daemon's CPU time for one query of it."""


class World(NamedTuple):
    """A pod, a machine with a resolver, and the pod's node."""

    pod: Namespace
    machine: Namespace
    node: Node

    def enroll(self) -> None:
        """Take the pod in."""
        self.node.client.call("enroll", pod="demo/client", netns=self.pod.name)

    def unenroll(self) -> None:
        """Let it go."""
        self.node.client.call("unenroll", pod="demo/client")

    def ask(self, kind: Kind, width: int, seconds: float) -> tuple[Window, float]:
        """Ask for so long; return what that gave, and the daemon's CPU time for a query."""
        query = dns.message.make_query(kind.question, "A", use_edns=False).to_wire()
        assert self.node.process is not None
        with closing(self.pod.socket(kind=kind.protocol)) as sock:
            sock.connect((self.machine.ip4, PORT))
            asker = Asker(sock, query, width)
            asker.ask(WARM_S)
            before = proc.cpu_seconds(self.node.process.pid)
            found = asker.ask(seconds)
            spent = proc.cpu_seconds(self.node.process.pid) - before
            return found, spent * 1e6 / (found.rate * seconds)


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Make one; the pod is not enrolled."""
    with pair() as (pod, machine), ExitStack() as stack:
        node = Node(f"{PREFIX}dns-bench", directory, directory / "ca")
        stack.callback(node.clean)
        here = workload("demo/client", *pod.ips, node=node.name)
        node.config.write_text(yaml_of(here, service(f"demo/{KNOWN}", "10.96.0.80")))
        sock = stack.enter_context(closing(machine.socket(kind=socket.SOCK_DGRAM)))
        sock.bind((machine.ip4, PORT))
        stack.enter_context(dns_load.resolver(sock))
        node.start()
        yield World(pod, machine, node)


def measure(rounds: int, seconds: float) -> Seen:
    """Ask in every way, the ways alternating."""
    seen: Seen = {(kind, width): [] for kind in KINDS for width in WIDTHS}
    with tempfile.TemporaryDirectory(prefix="zpt-bench-") as directory, world(Path(directory)) as made:
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            for is_enrolled in (False, True):
                if is_enrolled:
                    made.enroll()
                for kind, width in seen:
                    if kind.is_enrolled == is_enrolled:
                        seen[kind, width].append(made.ask(kind, width, seconds))
            made.unenroll()
    progress("")
    return seen


def lines(seen: Seen) -> list[Line]:
    """Return the medians."""
    found = []
    for (kind, width), windows in seen.items():
        rate, p50, p99 = (statistics.median(each) for each in zip(*(w for w, _ in windows), strict=True))
        direct = statistics.median(window.rate for window, _ in seen[DIRECT, width])
        cpu = statistics.median(spent for _, spent in windows) if kind.is_enrolled else None
        found.append(Line(kind.name, width, rate, p50, p99, cpu, rate / direct))
    return found


def table(found: list[Line]) -> list[list[str]]:
    """Return the head and a line per way."""
    head = ["asked", "at once", "queries/s", "p50 us", "p99 us", "CPU us", "of the resolver's rate"]
    return [head] + [
        [each.kind, str(each.width), *map(report.figure, each[2:6]), f"{each.ratio:.2f}"] for each in found
    ]


def main() -> int:
    """Measure and print; return 1 when a query was not answered as it should be."""
    options = _options()
    found: list[Line] = []
    broken: list[str] = []

    def run() -> None:
        try:
            found.extend(lines(measure(options.rounds, options.seconds)))
        except (LoadError, OSError) as error:
            broken.append(str(error))

    return session.alone(run) or _print(options, found, broken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dns", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each figure; 5 if not given")
    parser.add_argument("--seconds", type=float, default=0.8, help="of each window; 0.8 if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there; also $BENCH_JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    options = parser.parse_args()
    if options.json is None and os.environ.get("BENCH_JSON"):
        options.json = Path(os.environ["BENCH_JSON"])
    return options


def _print(options: argparse.Namespace, found: list[Line], broken: list[str]) -> int:
    if options.json:
        options.json.write_text(json.dumps([each._asdict() for each in found], indent=1) + "\n")
    shown: Any = report.markdown if options.markdown else report.aligned
    print(session.described())
    print(f"command: {shlex.join(['python', '-m', 'tests.bench.dns', *sys.argv[1:]])}")
    print(
        f"medians of {options.rounds} rounds, windows of {options.seconds} s, alternating; client, resolver"
    )
    print("and daemon share the cores\n")
    print(shown(table(found), 1))
    for sentence in broken:
        print(f"ERROR: {sentence}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
