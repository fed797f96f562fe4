"""Two real daemons and two real pods: what an end-to-end test stands on.

Each daemon is `zproxy run` in a process of its own; the pods are namespaces joined by a veth. All have a
name that begins with zpt- and this process's id, and is gone afterwards, pins and run directories included.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, pair
from zproxy.config import RUN_ROOT
from zproxy.errors import ZproxyError
from zproxy.model.workload import Workload
from zproxy.node.client import Client
from zproxy.steering.steering import remove

WAIT_S = 15.0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    """Return the first true result of `condition`; fail after `seconds`."""
    ends = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < ends, f"never happened: {what}"
        time.sleep(0.01)  # between two looks at another process; no test's timing rests on it
    return result


class Node:
    """One `zproxy run` and its log."""

    def __init__(self, name: str, directory: Path, ca: Path, options: Sequence[str] = ()) -> None:
        self.name = name
        self.options = options
        """More words for `zproxy run`, from the next start on."""
        self.wrapper: Sequence[str] = ()
        """Words before the command, from the next start on."""
        self.source: Path | None = None
        """Where another version of zproxy is, from the next start on; None for this one."""
        self.config = directory / f"{name}.yaml"
        self.has_file = True
        """Whether its mesh comes from that, from the next start on."""
        self.log = directory / f"{name}.log"
        self.ca = ca
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(name)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.launch()
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until the daemon answers."""
        wait_for(self.is_ready, f"daemon {self.name} ready: {self.log.read_text()}")

    def launch(self) -> None:
        """Start the daemon."""
        command = [sys.executable, "-m", "zproxy", "run", "--node", self.name]
        command += ["--config", str(self.config)] if self.has_file else []
        command += ["--ca-dir", str(self.ca), *self.options]
        environment = None if self.source is None else dict(os.environ, PYTHONPATH=str(self.source))
        with self.log.open("ab") as log:
            command = [*self.wrapper, *command]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.source, env=environment)

    def is_ready(self) -> bool:
        """Tell whether the daemon answers; fail when it has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.client.call("status"))
        except ZproxyError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the daemon; its pins stay."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(WAIT_S)
            self.process = None

    def clean(self) -> None:
        """End the daemon and remove everything of its name."""
        self.stop(signal.SIGKILL)
        remove(self.name)
        shutil.rmtree(RUN_ROOT / self.name, ignore_errors=True)

    def lines(self, text: str) -> list[str]:
        """Return the log lines that contain `text`."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def access(self, text: str, count: int = 1) -> list[str]:
        """Wait for `count` access log lines that contain `text` and return them."""

        def found() -> list[str]:
            lines = [line for line in self.lines(text) if "\taccess\t" in line]
            return lines if len(lines) >= count else []

        return list(wait_for(found, f"{count} access lines with {text!r}"))

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a counter's samples that have these labels."""
        text = self.client.call("metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call] # the library's
            for sample in family.samples
            if sample.name == f"{name}_total" and labels.items() <= sample.labels.items()
        )

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `zproxy --node NAME` with these words, as a person would."""
        command = [sys.executable, "-m", "zproxy", "--node", self.name, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def dump(self, name: str) -> list[dict[str, Any]]:
        """Return a map of this node as `zproxy bpf map dump -j` shows it."""
        command = [sys.executable, "-m", "zproxy", "--node", self.name, "bpf", "map", "dump", name, "-j"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
        return [entry["formatted"] for entry in json.loads(done.stdout)]


class TwoNodes:
    """`client` and `server` are pods, `a` and `b` their nodes; enrolled by `two_nodes`."""

    def __init__(self, directory: Path, client: Namespace, server: Namespace) -> None:
        self.client, self.server = client, server
        self.a = Node(f"{PREFIX}a", directory, directory / "ca")
        self.b = Node(f"{PREFIX}b", directory, directory / "ca")
        self.write_mesh()

    def workloads(self) -> list[Workload]:
        """Return what the mesh file says."""
        return [
            workload("demo/client", *self.client.ips, node=self.a.name),
            workload("demo/server", *self.server.ips, node=self.b.name),
        ]

    def write_mesh(self, *more: Workload) -> None:
        """Write both daemons' mesh file."""
        for node in (self.a, self.b):
            node.config.write_text(yaml_of(*self.workloads(), *more))

    def start(self) -> None:
        """Start both daemons at a time: most of it is compiling."""
        for node in (self.a, self.b):
            node.launch()
        for node in (self.a, self.b):
            node.await_ready()

    def enroll_client(self) -> None:
        self.a.client.call("enroll", pod="demo/client", netns=self.client.name)

    def enroll_server(self) -> None:
        self.b.client.call("enroll", pod="demo/server", netns=self.server.name)

    def dial(self, port: int = 8080, ip: str | None = None) -> socket.socket:
        """Connect from the client pod to the server pod (or to `ip`), as an app would."""
        to = ip or self.server.ip4
        sock = self.client.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
        sock.settimeout(WAIT_S)
        try:
            sock.connect((to, port))
        except OSError:
            sock.close()
            raise
        return sock


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send `data`, return the first answer and close; raise ConnectionError when the connection is reset.

    A reset can meet the app in connect() already, in send() or in recv(): dial inside the same `raises`.
    """
    with sock:
        sock.sendall(data)
        return sock.recv(65536)


@contextmanager
def two_nodes(
    directory: Path, *, only_client: bool = False, options: Sequence[str] = ()
) -> Iterator[TwoNodes]:
    """Make everything, start both daemons (with `options`) and enrol both pods, or one."""
    with ExitStack() as stack:
        nodes = TwoNodes(directory, *stack.enter_context(pair()))
        stack.callback(nodes.b.clean)
        stack.callback(nodes.a.clean)
        nodes.a.options = nodes.b.options = options
        nodes.start()
        nodes.enroll_client()
        if not only_client:
            nodes.enroll_server()
        yield nodes


class App:
    """A server in a pod: answers each connection in a thread of its own with `handle`."""

    def __init__(
        self, pod: Namespace, port: int, handle: Callable[[socket.socket, Any], None], ip: str = "::"
    ) -> None:
        self._listener = pod.listen(port, ip, backlog=1024)
        self._listener.settimeout(None)
        self._handle = handle
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock, peer), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        with sock:
            sock.settimeout(WAIT_S)
            self._handle(sock, peer)

    def close(self) -> None:
        """Stop; waits for what is under way."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)


def peer_echo(sock: socket.socket, peer: Any) -> None:
    """Answer one line with the address that the app sees, then with the line."""
    line = sock.recv(65536)
    ip = str(peer[0]).removeprefix("::ffff:")
    sock.sendall(f"{ip} ".encode() + line)


def enduring(handle: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
    """Return an app that takes a reset as the end, where a test ends daemons under open connections."""

    def serve(sock: socket.socket, peer: Any) -> None:
        with suppress(ConnectionError):
            handle(sock, peer)

    return serve


def echo_all(sock: socket.socket, _: Any) -> None:
    """Read to the end, then send everything back."""
    data = bytearray()
    while chunk := sock.recv(1 << 20):
        data += chunk
    sock.sendall(data)
