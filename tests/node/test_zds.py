"""Pods that a played istio-cni hands over to real daemons, by descriptors of real namespaces."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.message
import pytest

from tests.bench.ambient import redirect
from tests.support.istio_cni import IstioCni, istio_cni
from tests.support.local_config import yaml_of
from tests.support.mesh import service
from tests.support.netns import Namespace, namespace, pair, remove
from tests.support.nodes import App, TwoNodes, exchange, wait_for
from tests.support.podstate import listening, rules, state_of
from zproxy.config import PIN_ROOT
from zproxy.net.marked import mark
from zproxy.zds.wire import Ack, Add, Delete, WorkloadInfo

pytestmark = pytest.mark.root

PORTS = [15001, 15006, 15008, 15053]


class Scene(TwoNodes):
    """Each node takes its pods from an istio-cni of its own."""

    cni_a: IstioCni
    cni_b: IstioCni

    def pods(self, node: str = "a") -> dict[str, str]:
        rows = (self.a if node == "a" else self.b).client.call("pods")
        return {row["pod"]: row["state"] for row in rows}

    def zds(self) -> dict[str, Any]:
        status: dict[str, Any] = self.a.client.call("status")["zds"]
        return status

    def is_ready(self) -> bool:
        return bool(self.zds()["ready"])

    def add_client(self, uid: str = "uid-client") -> Ack:
        return self.cni_a.add(uid, "demo/client", self.client.netns.fd)

    def add_server(self) -> Ack:
        return self.cni_b.add("uid-server", "demo/server", self.server.netns.fd)

    def steered(self) -> list[int]:
        return [entry["key"] for entry in self.a.dump("zp_pods")]


@contextmanager
def scene_at(directory: Path, *more: str, only_a: bool) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene(directory, *stack.enter_context(pair()))
        nodes = (made.a,) if only_a else (made.a, made.b)
        if only_a:  # the server is nobody that the mesh knows
            made.a.config.write_text(yaml_of(made.workloads()[0]))
        for node in (made.b, made.a):
            stack.callback(node.clean)
        made.cni_a = stack.enter_context(istio_cni(directory / "a.sock"))
        made.a.options = ["--zds", str(made.cni_a.path), *more]
        if not only_a:
            made.cni_b = stack.enter_context(istio_cni(directory / "b.sock"))
            made.b.options = ["--zds", str(made.cni_b.path), *more]
        for node in nodes:
            node.launch()
        for node in nodes:
            node.await_ready()
        made.cni_a.accept()
        if not only_a:
            made.cni_b.accept()
        yield made


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Scene]:
    with scene_at(tmp_path, only_a=True) as made:
        yield made


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Scene]:
    with scene_at(tmp_path, only_a=False) as made:
        yield made


@pytest.fixture
def under_rules(tmp_path: Path) -> Iterator[Scene]:
    """Both pods have Istio's rules, as istio-cni puts them there before it hands a pod over."""
    with scene_at(tmp_path, "--steering", "external", only_a=False) as made:
        for pod in (made.client, made.server):
            redirect(pod)
        assert (made.add_client(), made.add_server()) == (Ack(), Ack())
        assert made.cni_a.snapshot() == made.cni_b.snapshot() == Ack()
        yield made


def echo(sock: socket.socket, _peer: object) -> None:
    sock.sendall(sock.recv(64) + b" from " + sock.getpeername()[0].removeprefix("::ffff:").encode())


@contextmanager
def hearing(pod: Namespace) -> Iterator[list[bytes]]:
    heard: list[bytes] = []
    app = App(pod, 8080, lambda sock, _: heard.append(sock.recv(64)))
    try:
        yield heard
    finally:
        app.close()


def twice(sock: socket.socket, _peer: object) -> None:
    for _ in range(2):
        sock.sendall(sock.recv(8))


def test_bytes_between_two_pods_that_were_handed_over_and_nothing_is_left(both: Scene) -> None:
    """The mesh learns of the pods only when they are enrolled, as it does in Kubernetes."""
    empty = both.a.config.read_text()
    before = state_of(both.client), state_of(both.server)
    app = App(both.server, 8080, echo)
    try:
        for node in (both.a, both.b):
            node.config.write_text("workloads: []\n")
        for node in (both.a, both.b):
            wait_for(lambda node=node: node.client.call("workloads") == [], "the mesh is empty")  # type: ignore[misc]
        assert (both.add_client(), both.add_server()) == (Ack(), Ack())
        assert both.cni_a.snapshot() == both.cni_b.snapshot() == Ack()
        early = both.dial()
        early.sendall(b"hello")
        for node in (both.a, both.b):
            node.config.write_text(empty)
        with early:
            assert early.recv(64) == f"hello from {both.client.ip4}".encode()
        assert "spiffe://cluster.local/ns/demo/sa/server" in both.a.access("8080")[0]
        assert exchange(both.dial(), b"again").startswith(b"again")
    finally:
        app.close()
    assert both.cni_a.delete("uid-client") == both.cni_b.delete("uid-server") == Ack()
    assert (state_of(both.client), state_of(both.server)) == before
    assert (both.pods("a"), both.pods("b"), both.steered()) == ({}, {}, [])


def test_without_a_record_nothing_passes(one: Scene) -> None:
    one.a.config.write_text("workloads: []\n")
    wait_for(lambda: one.a.client.call("workloads") == [], "the mesh is empty")
    one.add_client()
    with hearing(one.server) as heard, pytest.raises(ConnectionError):
        exchange(one.dial(), b"secret")
    assert heard == []
    one.a.access("failed to fetch information about local workload: demo/client is not in the mesh")


def test_ready_says_status(one: Scene) -> None:
    assert (one.zds()["connected"], one.zds()["ready"]) == (True, False)
    one.add_client()
    assert one.cni_a.snapshot() == Ack()
    assert one.is_ready()
    assert f"connected to {one.cni_a.path}, ready" in one.a.cli("status").stdout


def test_a_taken_port_is_a_nack_and_the_pod_is_taken_when_it_is_free(one: Scene) -> None:
    one.cni_a.snapshot()
    squatter = one.client.listen(15008)
    answer = one.add_client()
    assert "15008" in answer.error
    assert one.zds()["pending"] == [{"uid": "uid-client", "pod": "demo/client", "reason": answer.error}]
    assert "not taken yet, demo/client" in one.a.cli("status").stdout
    squatter.close()
    wait_for(one.is_ready, "the pod is taken")
    assert one.pods() == {"demo/client": "enrolled"}


def test_a_namespace_with_istios_own_rules_is_a_nack_that_says_so(one: Scene) -> None:
    """What istio-cni itself installs: `--steering external` is for those, and eBPF is not mixed with them."""
    one.client.execute("iptables", "-t", "nat", "-N", "ISTIO_OUTPUT")
    one.client.execute("iptables", "-t", "nat", "-A", "OUTPUT", "-j", "ISTIO_OUTPUT")
    before = state_of(one.client)
    assert "ISTIO_OUTPUT" in one.add_client().error
    assert state_of(one.client) == before


def test_the_same_again_and_del_and_add(one: Scene) -> None:
    for _ in range(2):
        assert one.add_client() == Ack()
        since = one.a.client.call("pods")[0]["since"]
        assert one.add_client() == Ack()
        assert one.a.client.call("pods")[0]["since"] == since
        assert one.cni_a.delete("uid-client") == Ack()
        assert one.pods() == {}
        assert listening(one.client) == []
    assert one.cni_a.delete("uid-client") == Ack()


def test_a_new_connection_keeps_whom_it_names_and_open_connections(one: Scene) -> None:
    one.add_client()
    one.cni_a.snapshot()
    app = App(one.server, 8080, twice)
    try:
        with one.dial() as sock:
            sock.sendall(b"1")
            assert sock.recv(8) == b"1"
            one.cni_a.hang_up()
            one.cni_a.accept()
            assert one.cni_a.keep("uid-client") == Ack()
            assert one.cni_a.snapshot() == Ack()
            sock.sendall(b"2")
            assert sock.recv(8) == b"2"
    finally:
        app.close()
    one.cni_a.hang_up()
    one.cni_a.accept()
    assert one.cni_a.snapshot() == Ack()
    assert one.pods() == {}
    assert listening(one.client) == []


def test_the_next_daemon_takes_up_the_pods_and_the_snapshot_decides(one: Scene) -> None:
    one.add_client()
    one.cni_a.snapshot()
    one.a.stop()
    one.a.start()
    one.cni_a.accept()
    assert one.pods() == {"demo/client": "enrolled"}
    assert one.add_client() == Ack()
    assert one.cni_a.snapshot() == Ack()
    assert one.is_ready()
    one.a.stop()
    one.a.start()
    one.cni_a.accept()
    assert one.cni_a.snapshot() == Ack()
    assert one.pods() == {}
    assert listening(one.client) == []


def test_pods_that_were_enrolled_by_hand_are_in_no_snapshot_and_stay(one: Scene) -> None:
    one.enroll_client()
    assert one.cni_a.snapshot() == Ack()
    assert one.cni_a.delete("uid-client") == Ack()
    assert one.pods() == {"demo/client": "enrolled"}


def test_a_pod_stays_whose_namespace_only_istio_cni_can_enter(one: Scene) -> None:
    """Its mount may be where the daemon cannot see it: that it is gone is istio-cni's to say."""
    one.a.stop()
    one.a.options = [*one.a.options, "--reconcile-interval", "1"]
    one.a.start()
    one.cni_a.accept()
    one.add_client()
    one.cni_a.snapshot()
    remove(one.client.name)
    looks = one.a.metric("zproxy_reconcile_looks")
    wait_for(lambda: one.a.metric("zproxy_reconcile_looks") >= looks + 3, "it was looked at")
    assert one.pods() == {"demo/client": "enrolled"}
    assert one.cni_a.delete("uid-client") == Ack()
    assert one.pods() == {}


def test_a_pod_without_an_address_is_a_nack(one: Scene) -> None:
    with namespace("empty") as empty:
        assert "has no address yet" in one.cni_a.add("uid-empty", "demo/empty", empty.netns.fd).error
        assert one.cni_a.delete("uid-empty") == Ack()
    assert one.cni_a.snapshot() == Ack()
    assert one.is_ready()


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_descriptors_is_refused_and_the_daemon_goes_on(one: Scene, count: int) -> None:
    one.add_client()
    fds = [one.client.netns.fd] * count
    answer = one.cni_a.ask(Add("uid-x", WorkloadInfo("x", "demo", "x")), fds)
    assert answer.error == f"protocol error: Add comes with 1 descriptors, not {count}"
    assert one.cni_a.is_closed()
    one.cni_a.accept()
    assert one.cni_a.keep("uid-client") == Ack()
    assert one.cni_a.snapshot() == Ack()
    assert one.pods() == {"demo/client": "enrolled"}
    wait_for(lambda: one.a.lines("protocol error: Add comes with 1 descriptors"), "it is in the log")


def test_who_floods_and_reads_nothing_is_given_up_and_pods_go_on(one: Scene) -> None:
    one.add_client()
    one.cni_a.snapshot()
    assert one.cni_a.sock is not None
    one.cni_a.sock.settimeout(0.1)
    with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        while True:
            one.cni_a.send(Delete("nobody"))
    wait_for(lambda: "does not read" in one.zds()["fault"] or one.zds()["connections_total"] > 1, "given up")
    one.cni_a.accept()
    assert one.cni_a.keep("uid-client") == Ack()
    assert one.cni_a.snapshot() == Ack()
    assert one.is_ready()


def test_the_end_of_istio_cni_changes_nothing_and_status_says_it(one: Scene) -> None:
    one.add_client()
    one.cni_a.snapshot()
    path = one.cni_a.path
    one.cni_a.close()
    wait_for(lambda: not one.zds()["connected"], "its end is noticed")
    done = one.a.cli("status")
    assert done.returncode == 1
    assert "not connected: " in done.stdout
    assert one.pods() == {"demo/client": "enrolled"}
    with istio_cni(path) as again:
        again.accept()
        again.keep("uid-client")
        again.snapshot()
        wait_for(one.is_ready, "it is found again")


def test_under_istios_rules_two_pods_talk_by_hbone(under_rules: Scene) -> None:
    made = under_rules
    app = App(made.server, 8080, echo)
    try:
        assert exchange(made.dial(), b"hello") == f"hello from {made.client.ip4}".encode()
        (line,) = made.b.access('direction="inbound"')
        assert "spiffe://cluster.local/ns/demo/sa/client" in line
        assert "15008" in made.a.access('direction="outbound"')[0]
    finally:
        app.close()


def test_under_istios_rules_nothing_of_ours_is_in_pod_or_kernel(under_rules: Scene) -> None:
    made = under_rules
    assert not (PIN_ROOT / made.a.name).exists()
    before = rules(made.client)
    assert made.a.cli("status").returncode == 0
    made.a.stop()
    made.a.start()
    made.cni_a.accept()
    assert made.pods() == {"demo/client": "enrolled"}
    assert made.cni_a.snapshot() == Ack()
    assert (made.pods(), rules(made.client)) == ({}, before), "those are istio-cni's"
    assert listening(made.client) == []


def test_under_istios_rules_cleanup_leaves_them(under_rules: Scene) -> None:
    made = under_rules
    before = rules(made.client)
    made.a.stop()
    done = made.a.cli("cleanup")
    assert done.returncode == 0, done.stderr
    assert rules(made.client) == before


def test_under_istios_rules_dns_is_answered_as_by_the_resolver_that_was_asked(under_rules: Scene) -> None:
    made = under_rules
    name, vip = "server.demo.svc.cluster.local", "10.96.0.7"
    made.a.config.write_text(yaml_of(*made.workloads(), service(f"demo/{name}", vip)))
    wait_for(lambda: made.a.client.call("services"), "the service is known")
    query = dns.message.make_query(name, "A")
    with made.client.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.sendto(query.to_wire(), ("192.0.2.53", 53))
        answer, source = sock.recvfrom(2048)
    assert source == ("192.0.2.53", 53)
    assert vip in dns.message.from_wire(answer).to_text()


def test_under_istios_rules_plaintext_comes_by_15006_with_its_source(under_rules: Scene) -> None:
    """From the client pod's namespace, by a socket that its rules let pass, as from outside the mesh."""
    made = under_rules
    app = App(made.server, 8080, echo)
    try:
        with made.client.socket() as sock:
            mark(sock.fileno())
            sock.connect((made.server.ip4, 8080))
            sock.sendall(b"plain")
            assert sock.recv(64) == f"plain from {made.client.ip4}".encode()
        (line,) = made.b.access('direction="inbound"')
        assert "15008" not in line
    finally:
        app.close()


@pytest.mark.parametrize("port", PORTS[:3])
def test_under_istios_rules_dialling_the_proxy_leads_nowhere(under_rules: Scene, port: int) -> None:
    answer = b""
    with contextlib.suppress(ConnectionError), under_rules.client.socket() as sock:
        sock.connect((under_rules.client.ip4, port))
        sock.sendall(b"loop\r\n\r\n")
        answer = sock.recv(64)
    assert answer == b""
