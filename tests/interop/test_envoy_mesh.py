"""Envoy as waypoint and as gateway, and Envoy beyond an Envoy gateway: bytes, and what both ends say."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.envoy import Envoy
from tests.support.envoy_config import Config, Keys, save, server
from tests.support.meshed import APP, ECHO, SUFFIX, Meshed, account, meshed
from tests.support.nodes import App, echo_all
from zproxy.identity.ca import LocalCa
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meshed]:
    with meshed(tmp_path_factory.mktemp("meshed")) as made:
        yield made


def keys(world: Meshed, identity: SpiffeId, directory: Path) -> Keys:
    ca = LocalCa.open(world.a.ca)
    credentials = ca.issue(identity).credentials._replace(roots=ca.root.pem)
    return save(credentials, directory, identity.service_account)


def serving(world: Meshed, identity: SpiffeId, app: Endpoint, directory: Path) -> Config:
    """An HBONE server that connects every CONNECT to `app`."""
    return server(keys(world, identity, directory), app)


def test_an_envoy_waypoint_is_told_what_the_app_dialled(world: Meshed, tmp_path: Path) -> None:
    to = f"{world.services['guarded-by-ip'].vips[0].ip}:80"
    config = serving(world, account("waypoint"), Endpoint("127.0.0.1", APP), tmp_path)
    with Envoy(world.pods["waypoint"], config) as envoy:
        answer, line = world.ask_service("guarded-by-ip", b"hello")
        (entry,) = envoy.access(1, kind="request", authority=to)
    assert answer == b"waypoint 127.0.0.1 hello"
    assert (entry["code"], entry["peer"]) == (200, str(account("client")))
    assert f";host=guarded-by-ip.{SUFFIX}" in entry["forwarded"]
    assert f'dst.identity="{account("waypoint")}"' in line
    assert "error=" not in line


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_an_envoy_gateway_passes_on_what_it_cannot_read(world: Meshed, tmp_path: Path, size: int) -> None:
    authority = f"remote-by-ip.{SUFFIX}:80"
    remote = world.pods["remote"]
    inner = serving(world, ECHO, Endpoint("127.0.0.1", 8081), tmp_path)
    outer = serving(world, account("gateway"), Endpoint(remote.ip4, 15008), tmp_path)
    data = os.urandom(size)
    with (
        closing(App(remote, 8081, echo_all)),
        Envoy(remote, inner) as server_envoy,
        Envoy(world.pods["gateway"], outer) as gateway_envoy,
    ):
        with world.dial("remote-by-ip") as sock:
            port = sock.getsockname()[1]
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            got = bytearray()
            while chunk := sock.recv(1 << 20):
                got += chunk
        line = world.line(port)
        (within,) = server_envoy.access(1, kind="request", authority=authority)
        (passed,) = gateway_envoy.access(1, kind="request", authority=authority)
    assert got == data
    assert (within["code"], passed["code"]) == (200, 200)
    assert (within["peer"], passed["peer"]) == (str(account("client")), str(account("client")))
    assert int(within["received"]) == size
    assert int(passed["received"]) > size, "TLS and HTTP/2 of its own"
    assert f'dst.identity="{ECHO}"' in line
    assert f" bytes_sent={size} bytes_recv={size} " in line
    assert "error=" not in line
