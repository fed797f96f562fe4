"""The CLI's side of the control socket: what it sends, and its sentences when nobody answers."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zproxy.errors import NoDaemon, ZproxyError
from zproxy.node import client
from zproxy.node.client import Client, running_nodes, socket_path

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def run_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(client, "RUN_ROOT", tmp_path)
    return tmp_path


@contextmanager
def listening(node: str) -> Iterator[socket.socket]:
    path = socket_path(node)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(5)
        yield listener


@contextmanager
def daemon(node: str, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one request with these bytes; yields what was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, sock.makefile("rb") as stream:
            asked.append(stream.readline())
            sock.sendall(answer)

    with listening(node) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            thread.join()


def line(**answer: Any) -> bytes:
    return json.dumps({"version": 1} | answer).encode() + b"\n"


def test_the_result_is_the_daemon_s() -> None:
    with daemon("node-a", line(result=[{"pod": "demo/client"}])) as asked:
        assert Client("node-a").call("pods", wide=True, netns=None) == [{"pod": "demo/client"}]
    wanted = {"version": 1, "command": "pods", "arguments": {"wide": True, "netns": None}}
    assert [json.loads(text) for text in asked] == [wanted]
    assert asked[0].endswith(b"\n")


def test_a_result_may_be_nothing() -> None:
    with daemon("node-a", line(result=None)):
        assert Client("node-a").call("stop") is None


def test_a_long_answer_is_read_to_its_end() -> None:
    rows = [{"id": number, "text": "x" * 100} for number in range(3000)]
    with daemon("node-a", line(result=rows)):
        assert Client("node-a").call("connections") == rows


def test_the_daemon_s_sentence_is_raised() -> None:
    with (
        daemon("node-a", line(error="unknown pod demo/x")),
        pytest.raises(ZproxyError, match=r"^unknown pod demo/x$"),
    ):
        Client("node-a").call("enroll", pod="demo/x")


@pytest.mark.parametrize("answer", [b"", b'{"version": 1, "resu'])
def test_an_answer_that_breaks_off_is_a_sentence(answer: bytes) -> None:
    with (
        daemon("node-a", answer),
        pytest.raises(NoDaemon, match="node-a closed the connection without an answer"),
    ):
        Client("node-a").call("pods")


def test_without_a_daemon_the_sentence_says_how_to_start_one() -> None:
    with pytest.raises(
        NoDaemon, match=r"no zproxy daemon runs for node node-a; .* `zproxy run --node node-a`"
    ):
        Client("node-a").call("pods")


def test_a_dead_daemon_s_socket_is_no_daemon() -> None:
    with listening("node-a"):
        pass
    with pytest.raises(NoDaemon, match="no zproxy daemon runs for node node-a"):
        Client("node-a").call("pods")
    assert running_nodes() == []


def test_a_daemon_that_is_stuck_is_waited_for_with_an_end() -> None:
    begun = time.monotonic()
    with (
        listening("node-a"),
        pytest.raises(NoDaemon, match="the daemon of node-a did not answer: timed out"),
    ):
        Client("node-a", 0.05).call("pods")
    assert time.monotonic() - begun < 2


def test_running_nodes_are_those_that_accept(run_root: Path) -> None:
    (run_root / "lab").mkdir()
    (run_root / "file").touch()
    with listening("node-b"), listening("node-a"), listening("node-c") as stopped:
        stopped.close()
        assert running_nodes() == ["node-a", "node-b"]


def test_without_a_run_directory_no_node_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "RUN_ROOT", tmp_path / "none")
    assert running_nodes() == []


@pytest.mark.parametrize("call", ["Client('node-a').call('pods')", "running_nodes()"])
@pytest.mark.root
def test_who_is_not_root_is_told_so(run_root: Path, call: str) -> None:
    code = (
        "import os, sys, pathlib; from zproxy.node import client; from zproxy.node.client import *\n"
        "client.RUN_ROOT = pathlib.Path(sys.argv[1]); os.chdir('/'); os.seteuid(65534)\n"
        f"try: {call}\n"
        "except client.ZproxyError as error: print(error)\n"
    )
    for directory in (run_root, *run_root.parents[:2]):
        os.chmod(directory, 0o755)
    with listening("node-a"):
        socket_path("node-a").parent.chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", code, run_root], capture_output=True, text=True, cwd=ROOT, check=True
        )
    assert done.stdout == f"{run_root}/node-a/control.sock is for root only; run as root\n"
