"""The CLI's side of the control socket."""

import errno
import json
import socket
from pathlib import Path
from typing import Any, Final

from zproxy.config import RUN_ROOT
from zproxy.errors import NoDaemon, ZproxyError

VERSION: Final = 1
ANSWER_S: Final = 60.0
"""Longest wait for an answer; enrolment is the slowest and takes well under a second."""


def socket_path(node: str) -> Path:
    """Return where the daemon of `node` listens."""
    return RUN_ROOT / node / "control.sock"


def running_nodes() -> list[str]:
    """Return the nodes whose daemon accepts connections here, sorted; raise for who is not root."""
    found = []
    for path in (directory / "control.sock" for directory in sorted(RUN_ROOT.glob("*"))):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            code = probe.connect_ex(str(path))
        if code == 0:
            found.append(path.parent.name)
        elif code in (errno.EACCES, errno.EPERM):
            raise ZproxyError(f"{path} is for root only; run as root")
    return found


class Client:
    """One connection per call; raises ZproxyError with the daemon's own sentence, NoDaemon without one."""

    def __init__(self, node: str, answer_s: float = ANSWER_S) -> None:
        self.node = node
        self._answer_s = answer_s

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command in the daemon and return its result."""
        request = {"version": VERSION, "command": command, "arguments": arguments}
        answer = self._exchange(json.dumps(request).encode() + b"\n")
        if "error" in answer:
            raise ZproxyError(str(answer["error"]))
        return answer.get("result")

    def _exchange(self, line: bytes) -> dict[str, Any]:
        path = socket_path(self.node)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(self._answer_s)
                sock.connect(str(path))
                sock.sendall(line)
                with sock.makefile("rb") as stream:
                    answer = stream.readline()
        except PermissionError as error:
            raise ZproxyError(f"{path} is for root only; run as root") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoDaemon(
                f"no zproxy daemon runs for node {self.node}; start one with `zproxy run --node {self.node}`"
            ) from error
        except OSError as error:
            raise NoDaemon(f"the daemon of {self.node} did not answer: {error}") from error
        if not answer.endswith(b"\n"):
            raise NoDaemon(f"the daemon of {self.node} closed the connection without an answer; see its log")
        result: dict[str, Any] = json.loads(answer)
        return result
