"""`make bench-steering`: what it costs to bring a pod's traffic to its proxy, and to begin with that."""

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.bench import compiler, enrolment, facts, paths, report, session
from tests.bench.cells import NOISY, Results
from tests.bench.facts import Fact
from tests.bench.rounds import Plan, measure, progress

LEAST_PODS: Final = 1 + enrolment.RUNNING + enrolment.BY_COMMAND + enrolment.LAST


def main() -> int:
    """Measure, print, and return 1 when a cell broke or traffic was harmed. Targets may be missed."""
    options = _options()
    if options.pods < LEAST_PODS:
        session.die(f"--pods {options.pods} is too few: {LEAST_PODS} at least")
    results, found, broken = Results(), list[Fact](), list[str]()

    def run() -> None:
        plan = Plan(options.rounds, options.seconds, options.warm, paths.CONTENDERS)
        measure(plan, paths.MICRO, results)
        broken.extend(report.errors(results.rows()))
        try:
            with tempfile.TemporaryDirectory(prefix="zpt-bench-") as directory:
                found.extend(compiler.facts())
                found.extend(enrolment.facts(options.pods, Path(directory), progress))
        except (AssertionError, OSError) as error:
            broken.append(str(error))
        progress("")

    return session.alone(run) or _print(options, results, found, broken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steering", description=__doc__)
    Plan.options(parser)
    parser.add_argument("--pods", type=int, default=200, help="pods of one daemon; 200 if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there; also $BENCH_JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    options = parser.parse_args()
    if options.json is None and os.environ.get("BENCH_JSON"):
        options.json = Path(os.environ["BENCH_JSON"])
    return options


def _print(options: argparse.Namespace, results: Results, found: list[Fact], broken: list[str]) -> int:
    rows = results.rows()
    if options.json:
        both = {"cells": report.as_json(rows), "figures": facts.as_json(found)}
        options.json.write_text(json.dumps(both, indent=1) + "\n")
    table: Any = report.markdown if options.markdown else report.aligned
    print(session.described())
    print(f"command: {shlex.join(['python', '-m', 'tests.bench.steering', *sys.argv[1:]])}")
    print(f"medians of {options.rounds} rounds, windows of {options.seconds} s, alternating; a stub accepts")
    print("in the proxy's place, in passthrough cells the proxy itself; pinned: all of it on one core\n")
    print(table(paths.table(rows), 2), end="\n\n")
    for who, name in ((paths.EBPF, "eBPF"), (paths.IPTABLES, "iptables")):
        added = paths.added_us(rows, who)
        print(f"{name} adds {report.figure(added)} us to a connection, on one core")
    print()
    print(table(facts.table(found), 4), end="\n\n")
    usual, often = results.noise()
    print(f"others on this machine used {usual:.0%} of a core in the median run, {often:.0%} in one of ten")
    print("that is too much: measure again when it is quiet" if usual > NOISY else "")
    for sentence in broken:
        print(f"ERROR: {sentence}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
