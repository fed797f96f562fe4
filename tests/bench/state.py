"""`make bench-state`: what the mesh costs to look into, to change, to read and to keep, as it grows."""

import argparse
import gc
import json
import os
import shlex
import socket
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from tests.bench import facts, report, session, state_mesh
from tests.bench.facts import Fact
from tests.bench.state_mesh import records
from tests.support.local_config import yaml_of
from zproxy.model.addr import Endpoint
from zproxy.model.route import Route, Upstream
from zproxy.model.settings import Compat
from zproxy.model.workload import Status
from zproxy.proxy.balancer import Balancer
from zproxy.sources import file
from zproxy.sources.pace import considerate
from zproxy.state.balance import candidates
from zproxy.state.lookup import service_at, service_named
from zproxy.state.policy import Attempt, authorize
from zproxy.state.resolve import resolve
from zproxy.state.store import Change, Mesh

SIZES: Final = (100, 1_000, 10_000)
FLAT: Final = 2.0
"""How many times dearer a lookup may be in the largest mesh; what no cache of the core holds takes longer."""
UPDATE_MS: Final = 10.0
CHOICE_MS: Final = 1.0
_LOOKUPS: Final = 1_000


class Lookup(NamedTuple):
    """Something to look up, and the cost of one in each size of mesh."""

    name: str
    micros: tuple[float, ...]

    @property
    def growth(self) -> float:
        """How many times dearer it is in the largest mesh than in the smallest."""
        return self.micros[-1] / self.micros[0]


def lookups(sizes: Sequence[int], rounds: int) -> list[Lookup]:
    """Measure each kind in a mesh of each size: the mean of many keys, and the least of `rounds`."""
    found: dict[str, list[float]] = {}
    for size in sizes:
        mesh = Mesh.of(*records(size))
        keys = [Random(0).randrange(size) for _ in range(_LOOKUPS)]
        for name, calls in _calls(mesh, keys):
            found.setdefault(name, []).append(_micros(calls, rounds))
    return [Lookup(name, tuple(micros)) for name, micros in found.items()]


def changes(size: int, rounds: int) -> Iterator[Fact]:
    """Yield what one changed record costs, and one that belongs to a service of all workloads."""
    made = records(size)
    mesh = Mesh.of(*made)
    workload, service, policy = made.workloads[size // 2], made.services[-1], made.policies[-1]
    sick = Change((replace(workload, status=Status.UNHEALTHY),))
    yield _update("one workload changes", mesh, sick, rounds)
    yield _update("one service changes", mesh, Change((), (replace(service, canonical=True),)), rounds)
    yield _update("one policy changes", mesh, Change((), (), (replace(policy, dry_run=True),)), rounds)
    popular = made.services[0].key
    crowd = [replace(each, services=(popular,), service_ports=()) for each in made.workloads]
    crowded = Change((replace(crowd[0], status=Status.UNHEALTHY),))
    yield _update("one endpoint changes of a service that all have", Mesh.of(crowd), crowded, rounds)
    again = records(size)
    differ = _micros((lambda: Change.to(again, mesh),), rounds) / 1e3
    yield Fact("find that a file read again has the same records", differ, "ms")


def crowd(size: int, rounds: int) -> Iterator[Fact]:
    """Yield what it costs to choose one of `size` endpoints of a service, after each change of the mesh."""
    made = records(size)
    popular, to = made.services[0], Endpoint(state_mesh.vip(0), 80)
    pods = [replace(each, services=(popular.key,), service_ports=()) for each in made.workloads]
    mesh, balancer = Mesh.of(pods, [popular]), Balancer()

    def dial(number: int) -> None:
        source = pods[number]
        chooser = balancer.choice(source.workload_ips[0], 0.0)
        balancer.took(_chosen(resolve(mesh, source, to, chooser=chooser)))

    firsts, others = [], []
    for number in range(rounds):
        status = Status.UNHEALTHY if number % 2 else Status.HEALTHY
        mesh = mesh.changed(Change((replace(pods[-1], status=status),)))
        balancer.on_mesh(mesh)
        firsts.append(_micros((partial(dial, 0),), 1))
        others.append(_micros([partial(dial, each) for each in range(min(_LOOKUPS, size))], 1))
    among = f"choice among {size:,} endpoints"
    yield Fact(f"{among}, the first after a change", min(firsts) / 1e3, "ms", CHOICE_MS)
    yield Fact(f"{among}, any other, by any client", min(others) / 1e3, "ms", CHOICE_MS)


def _chosen(route: Route) -> str:
    assert isinstance(route, Upstream)
    return route.workload.uid


def reading(size: int, rounds: int) -> Iterator[Fact]:
    """Yield what it costs to read a whole mesh from its file, and what that leaves to a data-plane thread."""
    with tempfile.TemporaryDirectory(prefix="zpt-bench-") as directory:
        path = Path(directory) / "mesh.yaml"
        made = records(size)
        path.write_text(yaml_of(*made.workloads, *made.services, *made.policies))

        def again() -> None:
            with considerate() as pause:
                file.read(path, pause)

        yield Fact("size of the file", path.stat().st_size / 2**20, "MiB")
        yield Fact("read it at start", _micros((lambda: file.load(path),), min(rounds, 3)) / 1e6, "s")
        quiet, _ = _beside(lambda: time.sleep(0.5))
        for name, read in (("hurried", lambda: file.load(path)), ("as a running daemon does", again)):
            began = time.perf_counter()
            rate, longest = _beside(read)
            yield Fact(f"read it {name}, beside a thread that is busy", time.perf_counter() - began, "s")
            yield Fact("... what that thread does meanwhile, of its usual rate", rate / quiet * 100, "%")
            yield Fact("... and waits at most", longest * 1e3, "ms")


def _beside(work: Callable[[], object]) -> tuple[float, float]:
    """Do `work` beside a thread that sends itself bytes; return its rate per second and its longest turn."""
    has_begun, is_over = threading.Event(), threading.Event()
    turns: list[float] = []

    def busy() -> None:
        near, far = socket.socketpair()
        with near, far:
            while not is_over.is_set():
                began = time.perf_counter()
                near.send(b"x")
                far.recv(1)
                turns.append(time.perf_counter() - began)
                has_begun.set()

    thread = threading.Thread(target=busy)
    thread.start()
    has_begun.wait()
    began = time.perf_counter()
    try:
        work()
    finally:
        took = time.perf_counter() - began
        is_over.set()
        thread.join()
    return len(turns) / took, max(turns)


def memory(size: int) -> Iterator[Fact]:
    """Yield what one record of each kind keeps, with its place in the indexes, and one more snapshot."""
    few = size // state_mesh.PER_SERVICE
    for kind, count, make in (
        ("workload", size, lambda: Mesh.of(records(size).workloads)),
        ("service", few, lambda: Mesh.of(services=records(size).services)),
        ("policy", few, lambda: Mesh.of(policies=records(size).policies)),
    ):
        yield Fact(f"memory of a {kind}", _kept(make)[0] / count, "bytes")
    whole, mesh = _kept(lambda: Mesh.of(*records(size)))
    yield Fact("memory of the mesh", whole / 2**20, "MiB")
    sick = replace(mesh.workloads[0], status=Status.UNHEALTHY)
    kept, _ = _kept(lambda: mesh.changed(Change((sick,))))
    yield Fact("memory of the former mesh after one workload changed", kept / 2**20, "MiB")


def table(found: Sequence[Lookup], sizes: Sequence[int]) -> list[list[str]]:
    """Return the head and a line per lookup."""
    lines = [["lookup, us", "target", "", *(f"{size:,}" for size in sizes), "growth"]]
    for each in found:
        says = "PASS" if each.growth < FLAT else "MISS"
        figures = [report.figure(micros) for micros in each.micros]
        lines.append([each.name, f"< {FLAT:g} x", says, *figures, f"{each.growth:.2f}"])
    return lines


def _calls(mesh: Mesh, keys: list[int]) -> Iterator[tuple[str, list[Callable[[], object]]]]:
    """Yield kinds of lookups, each with a call per key. All of them find something."""
    pods = [mesh.workloads[key] for key in keys]
    served = [key // state_mesh.PER_SERVICE for key in keys]
    vips = [Endpoint(state_mesh.vip(each), 80) for each in served]
    inside = [state_mesh.within(each - each % state_mesh.PER_RANGE) for each in served]
    of_services = [(mesh.services[each], to) for each, to in zip(served, vips, strict=True)]
    source = pods[0]
    near = source.namespace
    yield "workload by address", [partial(mesh.by_ip, state_mesh.ip(key)) for key in keys]
    yield "workload by uid", [partial(mesh.by_uid, pod.uid) for pod in pods]
    yield "service by address", [partial(service_at, mesh, "", to.ip, near) for to in vips]
    yield "service by range", [partial(service_at, mesh, "", at, near) for at in inside]
    yield (
        "service by name",
        [partial(service_named, mesh, state_mesh.hostname(each), near) for each in served],
    )
    found = [partial(candidates, mesh, service, source, to) for service, to in of_services]
    yield "endpoints of a service, found before", list(found)
    yield "endpoints of a service, found anew", [partial(_anew, mesh, call) for call in found]
    direct = [Endpoint(state_mesh.ip(key), 8080) for key in keys]
    yield "route to an address", [partial(resolve, mesh, source, to) for to in direct]
    yield "route to a service", [partial(resolve, mesh, source, to) for to in vips]
    attempts = [
        Attempt(pod, source.identity, source.workload_ips[0], to)
        for pod, to in zip(pods, direct, strict=True)
    ]
    yield "policy decision", [partial(authorize, Compat.ZPROXY, mesh, attempt) for attempt in attempts]


def _anew(mesh: Mesh, call: Callable[[], object]) -> object:
    for memo in (mesh.memo, mesh.service_memo):
        memo.clear()
        memo.older.clear()
    return call()


def _update(name: str, mesh: Mesh, change: Change, rounds: int) -> Fact:
    return Fact(name, _micros((lambda: mesh.changed(change),), rounds) / 1e3, "ms", UPDATE_MS)


def _micros(calls: Sequence[Callable[[], object]], rounds: int) -> float:
    """Return what one of `calls` takes in the best round: what varies is the rest of the machine."""
    least = float("inf")
    for _ in range(rounds):
        gc.collect()
        began = time.perf_counter()
        for call in calls:
            call()
        least = min(least, time.perf_counter() - began)
    return least * 1e6 / len(calls)


def _kept(make: Callable[[], Mesh]) -> tuple[int, Mesh]:
    """Return how many bytes of Python's memory the result of `make` holds, and the result."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], made
    finally:
        tracemalloc.stop()


def main() -> int:
    """Measure and print; targets may be missed."""
    options = _options()
    found = lookups(options.sizes, options.rounds)
    largest = options.sizes[-1]
    figures = [
        *changes(largest, options.rounds),
        *crowd(largest, options.rounds),
        *reading(largest, options.rounds),
        *memory(largest),
    ]
    if options.json:
        both = {"lookups": [each._asdict() for each in found], "figures": facts.as_json(figures)}
        options.json.write_text(json.dumps(both, indent=1) + "\n")
    shown: Any = report.markdown if options.markdown else report.aligned
    few = largest // state_mesh.PER_SERVICE
    print(session.described())
    print(f"command: {shlex.join(['python', '-m', 'tests.bench.state', *sys.argv[1:]])}")
    print(f"the best of {options.rounds} rounds; a service has {state_mesh.PER_SERVICE} endpoints\n")
    print(shown(table(found, options.sizes), 3), end="\n\n")
    print(f"{largest:,} workloads, {few:,} services, {few:,} policies:\n")
    print(shown(facts.table(figures), 4))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.state", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each figure; 15 if not given")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the meshes, in workloads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there; also $BENCH_JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    options = parser.parse_args()
    if options.json is None and os.environ.get("BENCH_JSON"):
        options.json = Path(os.environ["BENCH_JSON"])
    return options


if __name__ == "__main__":
    sys.exit(main())
