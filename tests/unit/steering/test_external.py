"""Steering that is somebody else's: what the daemon asks for happens by doing nothing."""

import socket
from pathlib import Path
from typing import Any

import pytest

from zproxy.errors import ConfigError
from zproxy.model.attach import ProbeMode
from zproxy.model.pod import DEFAULT_OPTIONS
from zproxy.net.sockets import SO_MARK
from zproxy.steering.external import External
from zproxy.steering.pins import NodePins


def test_nothing_is_done_and_nothing_is_needed() -> None:
    steering, anything = External(), Any
    pod: Any = anything
    steering.attach(pod)
    steering.choose(7, DEFAULT_OPTIONS)
    steering.detach(7)
    steering.heart.beat()
    steering.heart.stop()
    steering.close()
    assert steering.is_external
    assert (steering.inspector.traces(), steering.inspector.entries()) == (set(), [])
    assert steering.find_resolver(7, "169.254.0.1") is None
    assert steering.probes.mode is ProbeMode.NONE
    assert steering.examine("demo/x", pod, None, None).path is None
    assert steering.examine("demo/x", pod, None, "/sys/fs/cgroup/x").path == Path("/sys/fs/cgroup/x")


@pytest.mark.root
def test_a_socket_is_exempt_by_its_mark() -> None:
    with socket.socket() as sock:
        External().exempt(sock.fileno())
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0x539


def test_ebpf_of_an_earlier_daemon_is_taken_down_first(tmp_path: Path) -> None:
    assert External.open_for("node-a", tmp_path).is_external
    NodePins("node-a", tmp_path).directory.mkdir(parents=True)
    with pytest.raises(ConfigError, match="zproxy cleanup --node node-a"):
        External.open_for("node-a", tmp_path)
