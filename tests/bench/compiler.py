"""What compiling and loading the programs costs, and adopting them: a process of its own per node.

Run as a program with the name of a node; prints one JSON object and takes the node's pins down again.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.facts import Fact
from tests.support.netns import PREFIX
from zproxy.steering.steering import Steering, remove

ROUNDS = 3
_ROOT = Path(__file__).parents[2]


def facts() -> Iterator[Fact]:
    """Yield the least of a few rounds: what varies is the rest of the machine."""
    said = [_measured(f"{PREFIX}compiler-{number}") for number in range(ROUNDS)]
    best = {key: min(one[key] for one in said) for key in said[0]}
    yield Fact("compile, load and pin the programs", best["load_ms"], "ms")
    yield Fact("adopt the programs of the daemon before", best["adopt_ms"], "ms")
    yield Fact("memory of the loader, gone with it", best["loader_kb"] / 1024, "MiB")
    yield Fact("memory of what has no bcc beside it", best["own_kb"] / 1024, "MiB")


def _measured(node: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.compiler", node]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise OSError(done.stderr.strip())
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main(node: str) -> None:
    """Open the steering of `node` twice: the first time there is nothing to adopt."""
    try:
        taken = []
        for _ in range(2):
            began = time.monotonic()
            steering = Steering.open(node)
            taken.append((time.monotonic() - began) * 1e3)
            steering.close()
    finally:
        remove(node)
    own, children = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"load_ms": taken[0], "adopt_ms": taken[1], "loader_kb": children, "own_kb": own}))


if __name__ == "__main__":
    main(*sys.argv[1:])
