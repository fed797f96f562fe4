"""The steps of enrolment: their order, their undoing, and which namespace is meant."""

import asyncio
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace, batch, pair
from tests.support.podstate import listening, rules, state_of
from tests.support.steering import Bench, bench, open_files, pod_of
from zproxy.errors import EnrollError, SteeringError
from zproxy.model import ports
from zproxy.model.pod import DEFAULT_OPTIONS
from zproxy.model.workload import Workload
from zproxy.net.netns import Netns
from zproxy.node import enroll as subject
from zproxy.node.enroll import open_netns, refuse_own_namespace
from zproxy.node.pod import Pod
from zproxy.node.routes import PodNetwork
from zproxy.steering.steering import PodSteering

PORTS = [ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE, ports.DNS]


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with pair("pod", "peer") as (made, _):
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def enroll(node: Bench, workload: Workload, pod: Namespace) -> Pod:
    """Enrol as the manager does; the handle is closed on failure."""
    netns = Netns.named(pod.name)
    try:
        steering: Any = node.steering
        return asyncio.run(
            subject.enroll(workload, subject.Sandbox(netns), steering, node.workers[0], DEFAULT_OPTIONS)
        )
    except BaseException:
        netns.close()
        raise


def unenroll(node: Bench, enrolled: Pod) -> None:
    asyncio.run(subject.unenroll(enrolled, node.steering))  # type: ignore[arg-type] # fake


@pytest.mark.root
def test_an_enrolled_pod_has_listeners_route_and_steering(node: Bench, pod: Namespace) -> None:
    workload = pod_of("demo/client", pod)
    enrolled = enroll(node, workload, pod)
    assert listening(pod) == PORTS
    assert sum("lookup 100" in line for line in rules(pod)) == 2
    steered = node.steering.attached[pod.netns.cookie()]
    assert (steered.name, steered.uid) == ("demo/client", workload.uid)
    assert (steered.ips, steered.interfaces) == (pod.ips, ("eth0",))
    assert steered.plaintext_listener == enrolled.straw.plaintext_fd
    unenroll(node, enrolled)


@pytest.mark.root
def test_steering_comes_last_when_listeners_accept_already(node: Bench, pod: Namespace) -> None:
    def look(steered: PodSteering) -> None:
        assert listening(pod) == PORTS
        assert any("lookup 100" in line for line in rules(pod))
        with socket.socket(fileno=os.dup(steered.plaintext_listener)) as listener:
            assert listener.getsockname()[1] == ports.INBOUND_PLAINTEXT
        with pod.socket() as client:
            client.connect((pod.ip4, ports.OUTBOUND))

    node.steering.on_attach = look
    unenroll(node, enroll(node, pod_of("demo/client", pod), pod))
    assert node.steering.calls[0][0] == "attach"


@pytest.mark.root
def test_steering_is_not_touched_by_the_loop_s_thread(node: Bench, pod: Namespace) -> None:
    unenroll(node, enroll(node, pod_of("demo/client", pod), pod))
    assert len(node.steering.calls) == 2
    assert threading.get_ident() not in node.steering.threads


@pytest.mark.root
def test_unenrolling_gives_the_pod_back_as_it_was(node: Bench, pod: Namespace) -> None:
    before, files = state_of(pod), open_files()
    enrolled = enroll(node, pod_of("demo/client", pod), pod)
    assert state_of(pod) != before
    unenroll(node, enrolled)
    assert state_of(pod) == before
    assert open_files() == files
    assert node.identities() == []
    assert [call for call, _ in node.steering.calls] == ["attach", "detach"]


@pytest.mark.root
@pytest.mark.parametrize("port", PORTS)
def test_a_port_in_use_is_named_and_nothing_is_left(node: Bench, pod: Namespace, port: int) -> None:
    with pod.listen(port):
        before, files = state_of(pod), open_files()
        with pytest.raises(EnrollError, match=f"port {port} is in use inside the pod: .* `ss -lntp`"):
            enroll(node, pod_of("demo/client", pod), pod)
        assert state_of(pod) == before
        assert open_files() == files
    assert node.identities() == []
    assert node.steering.calls == []


@pytest.mark.root
def test_what_is_in_the_way_is_found_before_anything_is_changed(node: Bench, pod: Namespace) -> None:
    before, files = state_of(pod), open_files()
    node.steering.finding = SteeringError("Istio redirects the traffic")
    with pytest.raises(SteeringError, match="Istio redirects"):
        enroll(node, pod_of("demo/client", pod), pod)
    assert (state_of(pod), open_files(), node.identities()) == (before, files, [])
    assert node.steering.calls == []


@pytest.mark.root
def test_steering_gets_the_cgroup_that_was_found(node: Bench, pod: Namespace) -> None:
    netns = Netns.named(pod.name)
    steering: Any = node.steering
    sandbox = subject.Sandbox(netns, 42, "/pods/one")
    workload = pod_of("demo/client", pod)
    enrolled = asyncio.run(subject.enroll(workload, sandbox, steering, node.workers[0], DEFAULT_OPTIONS))
    assert node.steering.examined == [(42, "/pods/one")]
    assert node.steering.attached[enrolled.cookie].cgroup == Path("/pods/one")
    assert enrolled.record(None).cgroup == "/pods/one"
    unenroll(node, enrolled)


@pytest.mark.root
def test_when_the_route_fails_nothing_is_left(node: Bench, pod: Namespace) -> None:
    batch(pod.name, ["rule add fwmark 0x9 lookup 44 priority 32764"])
    before, files = state_of(pod), open_files()
    with pytest.raises(EnrollError, match="table 100"):
        enroll(node, pod_of("demo/client", pod), pod)
    assert (state_of(pod), open_files(), node.identities()) == (before, files, [])
    assert node.steering.calls == []


@pytest.mark.root
def test_when_steering_fails_nothing_is_left(node: Bench, pod: Namespace) -> None:
    before, files = state_of(pod), open_files()
    node.steering.failure = SteeringError("the verifier says no")
    with pytest.raises(SteeringError, match="the verifier says no"):
        enroll(node, pod_of("demo/client", pod), pod)
    assert (state_of(pod), open_files(), node.identities()) == (before, files, [])
    node.steering.failure = None
    unenroll(node, enroll(node, pod_of("demo/client", pod), pod))


@pytest.mark.root
def test_addresses_that_are_not_the_pod_s_are_refused_before_anything_is_done(
    node: Bench, pod: Namespace
) -> None:
    before, files = state_of(pod), open_files()
    workload = pod_of("demo/client", pod, ips=(pod.ip4, "10.9.9.9"))
    sentence = f"demo/client has 10.9.9.9, but its network namespace has {pod.ip4}, {pod.ip6}; is it another"
    with pytest.raises(EnrollError, match=re.escape(sentence)):
        enroll(node, workload, pod)
    assert (state_of(pod), open_files(), node.identities()) == (before, files, [])


@pytest.mark.root
def test_a_pod_may_have_addresses_that_the_mesh_does_not_know(node: Bench, pod: Namespace) -> None:
    enrolled = enroll(node, pod_of("demo/client", pod, ips=(pod.ip6,)), pod)
    assert node.steering.attached[enrolled.cookie].ips == pod.ips
    unenroll(node, enrolled)


@pytest.mark.root
def test_a_pod_leaves_even_when_its_sysctls_cannot_be_put_back(
    node: Bench, pod: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled = enroll(node, pod_of("demo/client", pod), pod)
    enrolled.former_sysctls = {"net/ipv4/tcp_fin_timeout": "no number"}
    unenroll(node, enrolled)
    assert listening(pod) == []
    assert node.steering.attached == {}
    assert "cannot set net.ipv4.tcp_fin_timeout" in caplog.text


@pytest.mark.root
def test_open_connections_of_a_pod_end_when_it_leaves(node: Bench, pod: Namespace) -> None:
    enrolled = enroll(node, pod_of("demo/client", pod), pod)
    with pod.socket() as client:
        client.connect((pod.ip4, ports.INBOUND_HBONE))
        unenroll(node, enrolled)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.root
def test_the_pod_s_name_is_the_default_name_of_its_namespace() -> None:
    named = f"zpt-{os.getpid()}-default"
    subprocess.run(["ip", "netns", "add", named], check=True)
    try:
        with open_netns(f"zpt/{os.getpid()}-default", None, None) as found, Netns.named(named) as expected:
            assert found.key == expected.key
    finally:
        subprocess.run(["ip", "netns", "delete", named], check=True)


@pytest.mark.root
def test_name_path_and_pid_mean_the_same_namespace(pod: Namespace) -> None:
    sleeper = subprocess.Popen(
        ["ip", "netns", "exec", pod.name, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert sleeper.stdin is not None
        assert sleeper.stdout is not None
        sleeper.stdin.write(b"up\n")
        sleeper.stdin.flush()
        assert sleeper.stdout.readline() == b"up\n"
        for netns, pid in ((pod.name, None), (f"/run/netns/{pod.name}", None), (None, sleeper.pid)):
            with open_netns("demo/client", netns, pid) as found:
                assert found.key == pod.netns.key
    finally:
        sleeper.communicate()


@pytest.mark.parametrize(
    ("netns", "pid", "sentence"),
    [
        ("x", 1, "give --netns or --pid, not both"),
        (None, None, "no network namespace /run/netns/demo-none for pod demo/none: `ip netns list` shows"),
        ("zpt-nowhere", None, "no network namespace /run/netns/zpt-nowhere for pod demo/none: `ip netns"),
        ("/zpt/no/where", None, "no network namespace /zpt/no/where for pod demo/none: "),
        (None, 1 << 22, "no network namespace /proc/4194304/ns/net for pod demo/none: is process 4194304"),
        ("/etc/hostname", None, "cannot open /etc/hostname as a network namespace: Invalid argument"),
        ("/proc/self/ns/mnt", None, "cannot open /proc/self/ns/mnt as a network namespace: Invalid argument"),
        ("..", None, "cannot open /run/netns/.. as a network namespace: "),
    ],
)
def test_a_namespace_that_is_not_there_is_a_sentence(
    netns: str | None, pid: int | None, sentence: str
) -> None:
    files = open_files()
    with pytest.raises(EnrollError, match=re.escape(sentence)):
        open_netns("demo/none", netns, pid)
    assert open_files() == files


@pytest.mark.root
def test_the_daemon_s_own_namespace_is_refused() -> None:
    files = open_files()
    with (
        Netns.current() as own,
        pytest.raises(EnrollError, match="is the daemon's own network namespace"),
    ):
        refuse_own_namespace(own)
    assert open_files() == files


@pytest.mark.root
def test_the_host_s_namespace_is_refused_wherever_the_daemon_is(
    pod: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subject.FORBIDDEN["/proc/1/ns/net"] == "the host's"
    monkeypatch.setattr(subject, "FORBIDDEN", {"/zpt/hidden": "hidden", pod.netns.path: "the host's"})
    with pytest.raises(EnrollError, match=f"{pod.netns.path} is the host's network namespace"):
        refuse_own_namespace(pod.netns)


@pytest.mark.root
def test_the_host_s_namespace_is_refused_where_pid_1_is_hidden(
    pod: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where the daemon may not look into processes that are not its own."""
    monkeypatch.setattr(subject, "FORBIDDEN", {"/zpt/hidden": "hidden"})
    monkeypatch.setattr("zproxy.net.netns.INITIAL_ONLY", Path("/proc/sys/net/core/somaxconn"))
    with pytest.raises(EnrollError, match=f"{pod.netns.path} is the host's network namespace"):
        refuse_own_namespace(pod.netns)


@pytest.mark.root
def test_a_pod_s_namespace_is_not_refused(pod: Namespace) -> None:
    refuse_own_namespace(pod.netns)


@pytest.mark.root
def test_what_cannot_be_undone_is_logged_and_stops_nobody(
    pod: Namespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = PodNetwork(pod.netns)

    def refuse(_: dict[str, str]) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(network, "restore", refuse)
    subject.network_restore(network, {})
    assert "Operation not permitted" in caplog.text
