"""One shape on one contender: run the load, look at the proxies before and after, return the cells."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

from tests.bench import cold, proc
from tests.bench.cells import Raw, Run, Shape, Values
from tests.bench.load import inside, line_of, running, window
from tests.bench.worlds import World
from tests.support.envoy_config import Keys
from zproxy.model import ports

PROXY_CORE: Final = 0
LOAD_CORE: Final = 1
APP: Final = "app"
LOAD: Final = "load"
ALL: Final = "all"
IDLE_PATIENCE_S: Final = 60.0
_SETTLE_S: Final = 0.5


class Meter:
    """Measures with windows of `span` seconds after `warm` seconds of the same load."""

    def __init__(self, program: Path, keys: Keys, warm: float, span: float) -> None:
        self._program = program
        self._keys = keys
        self._times = (str(warm), str(span))
        self._seconds = warm + span

    def measure(self, shape: Shape, world: World) -> Run:
        """Return the values of one run; raise LoadError or OSError when it breaks."""
        if shape.kind == "idle":
            return Run(self._idle(shape, world))
        with _pinned(world) if shape.is_pinned else nullcontext():
            command = self._cold(world) if shape.kind == "cold" else self._load(shape, world)
            if shape.is_pinned:
                command = ["taskset", "--cpu-list", str(LOAD_CORE), *command]
            pids = world.pids | {APP: world.app_pid}

            def sample(load: int) -> dict[str, float]:
                used = {who: proc.cpu_seconds(pid) for who, pid in (pids | {LOAD: load}).items()}
                return used | {ALL: proc.busy_seconds()}

            said, cpu = window(command, self._seconds, sample)
        return _run(shape, said, cpu)

    def _load(self, shape: Shape, world: World) -> list[str]:
        host, port = world.target
        words = (*shape.words, *self._times, host, str(port))
        return inside(world.client.name, str(self._program), *words)

    def _cold(self, world: World) -> list[str]:
        words = (*map(str, self._keys), *self._times, world.server.ip4, str(ports.INBOUND_HBONE))
        return inside(world.client.name, sys.executable, "-I", cold.__file__, *words)

    def _idle(self, shape: Shape, world: World) -> Values:
        """Open connections through fresh proxies, all alive before and after, and weigh them."""
        world.restart()
        host, port = world.target
        where = (host, str(port))
        base = inside(world.client.name, str(self._program))
        # Afterwards the tunnel is up and all code has run once.
        window([*base, "cps", "1", "0.1", "0.1", *where], 1, lambda _: {})
        time.sleep(_SETTLE_S)
        before = {side: proc.pss_bytes(pid) for side, pid in world.pids.items()}
        count = int(shape.words[0])
        with running([*base, "idle", *shape.words, *where], IDLE_PATIENCE_S) as process:
            line_of(process)
            time.sleep(_SETTLE_S)
            after = {side: proc.pss_bytes(pid) for side, pid in world.pids.items()}
            assert process.stdin
            process.stdin.write("ping\n")
            process.stdin.flush()
            assert json.loads(line_of(process))["connections"] == count
        return {f"{shape.name} {side}": (after[side] - before[side]) / count for side in before}


def _run(shape: Shape, said: Mapping[str, float], cpu: dict[str, float]) -> Run:
    """Put together what the load said and the CPU seconds of everybody in the same window."""
    everybody = cpu.pop(ALL)
    # The bulk stream of `mixed` is a process of its own, so there others are not known.
    others = None if shape.kind == "mixed" else (everybody - sum(cpu.values())) / said["seconds"]
    shares = [cpu.pop(who) / said["seconds"] for who in (APP, LOAD)]
    raw = Raw(
        seconds=said["seconds"],
        operations=said.get("operations", 0),
        size=said.get("bytes", 0),
        p50_us=said.get("p50_us", 0.0),
        p99_us=said.get("p99_us", 0.0),
        cpu=cpu,
    )
    return Run(shape.values(raw), sum(shares) if shape.is_pinned else max(shares), others)


@contextmanager
def _pinned(world: World) -> Iterator[None]:
    proxies = list(world.pids.values())
    everywhere = os.sched_getaffinity(0)
    proc.pin(proxies, {PROXY_CORE})
    proc.pin([world.app_pid], {LOAD_CORE})
    try:
        yield
    finally:
        proc.pin([*proxies, world.app_pid], everywhere)
