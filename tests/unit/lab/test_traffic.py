"""Traffic between two pods without a mesh: what is measured is what happened."""

import json

import pytest

from tests.support.netns import pair
from zproxy.errors import RequirementError, ZproxyError
from zproxy.lab import pod_files, traffic
from zproxy.lab.evidence.sockets import tcp_listeners
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_curl_reports_both_ends_of_its_connection(family: str) -> None:
    with pair() as (client, server), traffic.temporary_app(server.netns, (8080,)):
        to = Endpoint(getattr(server, family), 8080)
        answer = traffic.curl(client.netns, to, "/get?x=1")
    body = json.loads(answer.body)
    assert (answer.status, answer.error, answer.remote) == (200, "", to)
    assert body["origin"] == str(answer.local)
    assert answer.local.ip == getattr(client, family)
    assert body["url"] == "/get?x=1"
    assert answer.command == f"nsenter --net=/run/netns/{client.name} curl -s 'http://{to}/get?x=1'"


def test_a_name_is_looked_up_as_the_pods_own_file_says() -> None:
    with pair() as (client, server), traffic.temporary_app(server.netns, (8080,)):
        directory = pod_files.ROOT / client.name
        directory.mkdir(parents=True)
        try:
            (directory / "hosts").write_text(f"{server.ip4} server\n")
            answer = traffic.curl_by_name(client.netns, "server", 8080, "/get")
        finally:
            (directory / "hosts").unlink()
            directory.rmdir()
            pod_files.ROOT.rmdir()
    assert (answer.status, answer.error, answer.host) == (200, "", "server")
    assert answer.remote == Endpoint(server.ip4, 8080)
    assert answer.command == f"ip netns exec {client.name} curl -s 'http://server:8080/get'"


def test_a_refused_connection_is_an_answer_with_an_error() -> None:
    with pair() as (client, server):
        answer = traffic.curl(client.netns, Endpoint(server.ip4, 8080), "/get")
    assert answer.status == 0
    assert answer.error


def test_curl_missing_is_said_with_the_remedy() -> None:
    with pair() as (client, server), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        with pytest.raises(RequirementError, match="apt-get install curl"):
            traffic.curl(client.netns, Endpoint(server.ip4, 8080), "/get")
        with pytest.raises(RequirementError, match="apt-get install curl iproute2"):
            traffic.curl_by_name(client.netns, "server", 8080, "/get")


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_a_datagram_arrives(family: str) -> None:
    with pair() as (client, server):
        ends = getattr(client, family), getattr(server, family)
        sent = traffic.datagram(client.netns, server.netns, *ends, b"hello")
    assert (sent.src.ip, sent.dst.ip, sent.arrived) == (*ends, True)


def test_a_lost_datagram_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "_DATAGRAM_S", 0.1)
    with pair() as (client, server):
        server.execute("ip", "route", "replace", "blackhole", f"{client.ip4}/32")
        server.sysctl("ipv4.conf.eth0.rp_filter", "1")
        assert not traffic.datagram(client.netns, server.netns, client.ip4, server.ip4, b"hello").arrived


def test_the_temporary_app_is_gone_after_its_block() -> None:
    with pair() as (_, server):
        with traffic.temporary_app(server.netns, (8080, 8081)):
            assert {entry.local.port for entry in tcp_listeners(server.netns)} == {8080, 8081}
        assert tcp_listeners(server.netns) == ()


def test_no_port_needs_no_app() -> None:
    with pair() as (_, server), traffic.temporary_app(server.netns, ()):
        assert tcp_listeners(server.netns) == ()


def test_an_app_that_cannot_start_is_reported() -> None:
    with (
        pair() as (_, server),
        server.listen(8080),
        pytest.raises(ZproxyError, match="did not start"),
        traffic.temporary_app(server.netns, (8081, 8080)),
    ):
        pass
