"""`make bench` works: it measures what it is asked for, and leaves nothing when it is interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nodes import wait_for
from zproxy.net.netns import NAMED

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.root


@pytest.mark.timeout(300)  # the target installs a C compiler where there is none
def test_it_writes_the_cells_that_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    arguments = "--rounds 1 --seconds 0.2 --warm 0.1 --cells 'bulk up x1,connects x1'"
    done = subprocess.run(
        ["make", "-s", "bench", f"BENCH_JSON={file}", f"ARGS={arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = {cell["cell"]: cell for cell in json.loads(file.read_text())}
    assert {"bulk up x1", "bulk up x1 CPU", "connects x1 p50", "connects x1 rate"} < set(cells)
    for name in ("bulk up x1", "connects x1 rate"):
        cell = cells[name]
        assert cell["better"] == "higher"
        assert min(cell[who] for who in ("zproxy", "envoy", "direct", "zproxy>envoy", "envoy>zproxy")) > 0
        assert cell["ratio"] == pytest.approx(cell["zproxy"] / cell["envoy"])
        assert cell["errors"] == {}
    assert cells["bulk up x1 CPU"]["direct"] is None
    assert "new connections per second" in done.stdout


@pytest.mark.timeout(300)
def test_steering_is_measured_with_enrolment_and_pods(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = "--rounds 1 --seconds 0.1 --warm 0.05 --pods 31"
    done = subprocess.run(
        ["make", "-s", "bench-steering", f"BENCH_JSON={file}", f"ARGS={arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(file.read_text())
    cells = {cell["cell"]: cell for cell in said["cells"]}
    for name in ("pinned steering connects x1 p50", "steering rr 64B x64 rate"):
        assert min(cells[name][who] for who in ("zproxy", "direct", "iptables")) > 0
    assert cells["passthrough connects x1 p50"]["zproxy"] > 0
    figures = {figure["name"]: figure["value"] for figure in said["figures"]}
    assert figures["enrolment of pod number 31"] > 0
    assert figures["their datagrams, none lost"] > 0
    assert re.search(r"^eBPF adds -?[\d.]+ us to a connection", done.stdout, re.MULTILINE)


def test_dns_is_measured_beside_the_resolver_itself(tmp_path: Path) -> None:
    file = tmp_path / "dns.json"
    done = subprocess.run(
        ["make", "-s", "bench-dns", f"BENCH_JSON={file}", "ARGS=--rounds 1 --seconds 0.05"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads(file.read_text())
    assert [line["width"] for line in lines] == [1, 32] * 4
    assert all(0 < line["p50"] <= line["p99"] for line in lines)
    assert all((line["cpu"] is None) == ("without zproxy" in line["kind"]) for line in lines)
    assert "a name of the mesh" in done.stdout


def test_too_few_pods_are_refused_in_one_sentence() -> None:
    command = [sys.executable, "-m", "tests.bench.steering", "--pods", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "bench: --pods 3 is too few: 31 at least\n")


def test_an_interrupt_ends_it_and_everything_that_it_made() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", "--cells", "bulk"],
        cwd=ROOT,
        process_group=0,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(made_by(process.pid)) >= 6, "the benchmark builds its third pair of pods", 30)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "interrupted\n")
    assert made_by(process.pid) == []


INTERRUPTING_IP = """#!/bin/sh
case "$*" in
"netns {word} "*-server)
    if mkdir {once} 2>/dev/null; then
        {before}
        kill -INT $PPID
        exit 130
    fi
esac
exec {ip} "$@"
"""
"""iproute2's ip, which interrupts once who runs it to add or delete a namespace, and itself with it."""


@pytest.mark.parametrize(
    ("word", "before"),
    [("add", '{ip} "$@"'), ("add", ":"), ("delete", ":")],
    ids=["a namespace is there, and hardly so", "a namespace is not there yet", "a namespace goes"],
)
def test_an_interrupt_at_any_moment_leaves_no_namespace(tmp_path: Path, word: str, before: str) -> None:
    real = shutil.which("ip")
    assert real
    fake = tmp_path / "ip"
    fake.write_text(
        INTERRUPTING_IP.format(word=word, once=tmp_path / "once", before=before.format(ip=real), ip=real)
    )
    fake.chmod(0o755)
    arguments = ("--cells", "bulk up x1", "--contenders", "direct", "--rounds", "1", "--seconds", "0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT,
        env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")
    assert made_by(process.pid) == []


def made_by(pid: int) -> list[str]:
    """Return the namespaces that the benchmark in process `pid` has now."""
    return [path.name for path in NAMED.glob(f"zpt-{pid}-*")]
