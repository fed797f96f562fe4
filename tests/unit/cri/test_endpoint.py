"""Which socket is the container runtime's."""

import socket
from pathlib import Path

import pytest

from zproxy.cri.endpoint import find
from zproxy.errors import ConfigError


def sockets(directory: Path, *names: str) -> tuple[Path, ...]:
    paths = tuple(directory / name for name in names)
    for path in paths:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    return paths


def test_the_first_that_is_there_is_found(tmp_path: Path) -> None:
    crio, k3s = sockets(tmp_path, "crio.sock", "k3s.sock")
    assert find(None, (tmp_path / "containerd.sock", crio, k3s)) == crio


def test_a_file_that_is_no_socket_is_no_runtime(tmp_path: Path) -> None:
    (tmp_path / "containerd.sock").touch()
    assert find(None, (tmp_path / "containerd.sock",)) is None


def test_none_is_none_whatever_there_is(tmp_path: Path) -> None:
    assert find("none", sockets(tmp_path, "containerd.sock")) is None


@pytest.mark.parametrize("wish", ["/run/other.sock", "unix:///run/other.sock"])
def test_what_the_operator_says_is_taken_as_it_is(tmp_path: Path, wish: str) -> None:
    assert find(wish, sockets(tmp_path, "containerd.sock")) == Path("/run/other.sock")


@pytest.mark.parametrize("wish", ["containerd.sock", "tcp://127.0.0.1:1", "npipe:////./pipe/x"])
def test_what_is_no_path_is_refused_with_a_sentence(wish: str) -> None:
    with pytest.raises(ConfigError, match="absolute path or unix://PATH"):
        find(wish)
