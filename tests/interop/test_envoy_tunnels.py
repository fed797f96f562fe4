"""Tunnels shared with an Envoy: how many, for how long, and what happens when it wants to end one."""

import re
import signal
import socket
from typing import Any

import pytest

from tests.support.envoy_config import Config
from tests.support.interop import Link, Way
from tests.support.nodes import App, exchange, peer_echo, wait_for

pytestmark = pytest.mark.root


def echo(sock: socket.socket, _: object) -> None:
    while data := sock.recv(1000):
        sock.sendall(data)


def ask(sock: socket.socket, data: bytes) -> bytes:
    """Say something on a connection that stays open."""
    sock.sendall(data)
    return sock.recv(1000)


def used(link: Link) -> set[int]:
    """Return the tunnels that this path's connections use or used."""
    return {int(row["tunnel"]) for row in link.rows()}


def manager(config: Config) -> dict[str, Any]:
    """Return the settings of Envoy's server that concern HTTP."""
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    settings: dict[str, Any] = chain["filters"][0]["typed_config"]
    return settings


def test_500_streams_at_once(either: Way, port: int) -> None:
    app = App(either.nodes.server, port, echo)
    with either.link(port) as link:
        socks = [link.dial() for _ in range(500)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
        answers = [sock.recv(100) for sock in socks]
        tunnels = used(link)
        envoy_tunnels = link.envoy_tunnels()
        ours = [tunnel for tunnel in link.tunnels() if tunnel["id"] in tunnels]
        for sock in socks:
            sock.close()
        lines = link.lines(500)
        with link.dial() as late:
            assert ask(late, b"late") == b"late"
        assert used(link) == tunnels, "streams that ended make room for others"
    app.close()
    assert answers == [b"%d" % number for number in range(500)]
    assert sum(tunnel["streams"] for tunnel in ours) == 500
    assert len(ours) == envoy_tunnels
    # Our client puts 100 streams on a tunnel; our server allows 200, and more until Envoy knows.
    assert len(ours) in ({5} if either.is_outward else {1, 2, 3})
    assert len(lines) == 500
    assert not [line for line in lines if "error=" in line]


def test_zproxy_keeps_to_envoys_limit_of_streams(outward: Way, port: int) -> None:
    def narrow(config: Config) -> Config:
        manager(config)["http2_protocol_options"]["max_concurrent_streams"] = 2
        return config

    app = App(outward.nodes.server, port, echo)
    with outward.link(port, change=narrow) as link:
        socks = [link.dial() for _ in range(6)]  # all of them before Envoy's limit is known
        answers = [ask(sock, b"here") for sock in socks]
        tunnels = used(link)
        for sock in socks:
            sock.close()
        link.lines(6)
    app.close()
    assert answers == [b"here"] * 6
    assert len(tunnels) == 3


def test_envoy_receives_the_headers_of_an_ambient_mesh(outward: Way, port: int) -> None:
    app = App(outward.nodes.server, port, peer_echo)
    with outward.link(port) as link:
        sock = link.dial()
        source = sock.getsockname()
        exchange(sock, b"x")
        entry = link.entries()[0]
    app.close()
    assert entry["authority"] == str(link.to)
    assert entry["forwarded"] == f'for="{source[0]}:{source[1]}"'
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", entry["traceparent"])
    assert "k8s.namespace.name=demo,k8s.pod.name=client" in entry["baggage"]
    assert entry["source"].startswith(f"{outward.nodes.client.ip4}:")


def test_envoys_client_receives_the_baggage_of_the_server(inward: Way, port: int) -> None:
    app = App(inward.nodes.server, port, peer_echo)
    with inward.link(port) as link:
        exchange(link.dial(), b"x")
        headers = {field["key"]: field["value"] for field in link.entries()[0]["answer"]["headers"]}
    app.close()
    assert headers[":status"] == "200"
    assert "k8s.namespace.name=demo,k8s.pod.name=server" in headers["baggage"]


def test_pings_of_envoy_are_answered(either: Way, port: int) -> None:
    """Envoy closes a tunnel whose PING is not answered in time, and so would end the connection."""
    app = App(either.nodes.server, port, echo)
    with either.link(port, keepalive_s=0.1) as link:
        with link.dial() as sock:
            assert ask(sock, b"before") == b"before"
            start = tunnel_of(link)

            def ten_pings_later() -> bool:
                now = tunnel_of(link)
                # 9 octets of header, 8 of PING, 22 of TLS record.
                return all(now[key] >= start[key] + 10 * 39 for key in ("bytes_sent", "bytes_recv"))

            wait_for(ten_pings_later, "Envoy pings and is answered")
            assert ask(sock, b"after") == b"after"
        assert "error=" not in link.lines()[0]
        assert not [name for name, value in link.envoy.stats("keepalive_timeout").items() if value]
    app.close()


def tunnel_of(link: Link) -> dict[str, Any]:
    """Return the one tunnel of this path."""
    (number,) = used(link)
    return next(tunnel for tunnel in link.tunnels() if tunnel["id"] == number)


def test_a_stream_outlives_envoys_goaway_and_new_ones_go_elsewhere(outward: Way, port: int) -> None:
    def short_lived(config: Config) -> Config:
        settings = manager(config)
        settings["common_http_protocol_options"] = {"max_connection_duration": "0.2s"}
        settings["drain_timeout"] = "0.1s"
        return config

    app = App(outward.nodes.server, port, echo)
    with outward.link(port, change=short_lived) as link:
        with link.dial() as old:
            assert ask(old, b"before") == b"before"
            first = used(link)
            wait_for(
                lambda: link.envoy.stat("http.hbone.downstream_cx_max_duration_reached"), "GOAWAY is sent"
            )

            def new_ones_go_elsewhere() -> bool:
                with link.dial() as new:
                    assert ask(new, b"new") == b"new"
                return used(link) != first

            wait_for(new_ones_go_elsewhere, "a second tunnel")
            assert ask(old, b"after") == b"after"
        wait_for(lambda: not first & {tunnel["id"] for tunnel in link.tunnels()}, "the first tunnel ends")
        assert not [line for line in link.lines(2) if "error=" in line]
    app.close()


def test_when_envoy_is_back_the_next_connection_has_a_new_tunnel(outward: Way, port: int) -> None:
    app = App(outward.nodes.server, port, echo)
    with outward.link(port) as link:
        assert exchange(link.dial(), b"first") == b"first"
        first = used(link)
        busy = link.dial()
        assert ask(busy, b"busy") == b"busy"
        link.envoy.stop(signal.SIGTERM)
        with busy, pytest.raises(ConnectionResetError):
            busy.recv(1)
        wait_for(lambda: not first & {tunnel["id"] for tunnel in link.tunnels()}, "zproxy drops the tunnel")
        with pytest.raises(ConnectionError):
            exchange(link.dial(), b"?")
        link.envoy.start()
        assert exchange(link.dial(), b"second") == b"second"
        assert len(used(link) - first - {0}) == 1
        assert "nothing listens there" in next(line for line in link.lines(4) if "Connection refused" in line)
    app.close()


def test_a_stream_of_envoys_ends_in_peace_while_zproxy_stops(inward: Way, port: int) -> None:
    """zproxy's GOAWAY lets what is under way finish; the next daemon is found by a new tunnel."""
    app = App(inward.nodes.server, port, echo)
    node = inward.node
    with inward.link(port) as link:
        sock = link.dial()
        assert ask(sock, b"before") == b"before"
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: node.lines("stopping"), "the daemon begins to stop")
        wait_for(lambda: link.envoy.stat("cluster.hbone-0.upstream_cx_close_notify"), "Envoy has GOAWAY")
        assert ask(sock, b"last words") == b"last words"
        sock.close()
        node.stop()
        node.start()
        assert exchange(link.dial(), b"again") == b"again"
        assert not [line for line in link.lines(2) if "error=" in line]
    app.close()
