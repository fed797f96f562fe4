"""The reconciler over a real manager and real namespaces; only eBPF is a stand-in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import mesh
from tests.support.netns import Namespace, ip, pair, remove
from tests.support.podstate import listening, rules, state_of
from tests.support.steering import Bench, bench, open_files, pod_of
from zproxy.errors import SteeringError
from zproxy.net import namespaces, netlink
from zproxy.node import aliases, reconciler
from zproxy.node.pod import Pod
from zproxy.node.reconciler import Reconciler
from zproxy.steering.resolvers import PREFIX6

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "DEAD_S", 0.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture
def client(node: Bench) -> Iterator[Namespace]:
    """The namespace of demo/client, which is enrolled."""
    with pair() as (made, _):
        node.mesh = mesh(pod_of("demo/client", made))
        node.enroll("demo/client", netns=made.name)
        made.run(bool)  # a handle remembers the way home from its first use on
        yield made
        if node.manager.pods:
            node.unenroll("demo/client")


def sweep(node: Bench, times: int = 1) -> Reconciler:
    """Look at everything; return who did."""

    async def main() -> Reconciler:
        made = Reconciler(node.manager, _steering(node))
        try:
            for _ in range(times):
                await made.sweep()
        finally:
            made._watches.keep(set())
            node.manager.on_change = bool
        return made

    return asyncio.run(main())


def _steering(node: Bench) -> Any:
    return node.steering


def test_where_all_is_as_wanted_nothing_is_done(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    state, calls = state_of(client), list(node.steering.calls)
    with caplog.at_level(logging.WARNING):
        made = sweep(node, 3)
    assert caplog.text == ""
    assert (state_of(client), node.steering.calls, made.log.looks) == (state, calls, 3)


def test_a_pod_that_loses_its_addresses_may_be_ending_and_is_given_time_however_often_it_is_looked_at(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("-n", client.name, "addr", "flush", "dev", client.interface)
    monkeypatch.setattr(reconciler, "ENDING_S", 3600.0)
    sweep(node, 3)
    assert caplog.text == ""
    monkeypatch.setattr(reconciler, "ENDING_S", 0.0)
    sweep(node)
    assert "drift of demo/client, NOT repaired: addresses missing" in caplog.text


def test_what_is_gone_is_back_after_one_sweep(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    state, files = state_of(client), open_files()
    ip("-n", client.name, "rule", "del", "pref", "32764")
    ip("-n", client.name, "-6", "route", "flush", "table", "100")
    client.sysctl("ipv4.tcp_tw_reuse", "0")
    client.execute("ss", "-K", "-t", "state", "listening", "sport", "=", ":15001")
    node.steering.inspector.lost.add(client.netns.cookie())
    sweep(node)
    assert state_of(client) == state
    assert len(open_files()) == len(files)
    for check in ("rule IPv4", "route IPv6", "sysctls", "listener 15001", "pod entry"):
        assert f"drift of demo/client, repaired: {check} " in caplog.text
    assert set(node.steering.threads).isdisjoint({0}), "steering is never called on the loop's thread"


def test_a_repair_that_fails_is_reported_and_stops_no_other(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    node.steering.inspector.lost.add(client.netns.cookie())
    node.steering.failure = SteeringError("the map is full")
    ip("-n", client.name, "rule", "del", "pref", "32764")
    sweep(node, 2)
    assert "repaired: rule IPv4" in caplog.text
    assert caplog.text.count("NOT repaired: pod entry missing") == 1
    assert "that failed: the map is full" in caplog.text
    node.steering.failure = None


def test_a_listener_whose_port_was_taken_meanwhile_stays_refused_until_it_is_free(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    client.execute("ss", "-K", "-t", "state", "listening", "sport", "=", ":15006")
    with client.listen(15006):
        sweep(node)
    assert "NOT repaired: listener 15006 missing: plaintext: somebody else listens there" in caplog.text
    assert "port 15006 is in use" in caplog.text
    sweep(node)
    assert listening(client) == [15001, 15006, 15008, 15053]


def test_queries_by_udp_are_taken_again(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    straw = node.manager.pods["demo/client"].straw
    before = asyncio.run(straw.sockets())
    straw._straw.dns.drain()
    sweep(node)
    assert "repaired: listener 15053/udp missing: dns: nobody takes queries" in caplog.text
    (inode,) = client.run(lambda: netlink.taking_datagrams(15053))
    assert inode not in before
    assert inode in asyncio.run(straw.sockets())


def test_routes_of_aliases_follow_the_pod_s_address(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    ip("-n", client.name, "addr", "add", "10.99.0.7/24", "dev", "eth0")
    ip("-n", client.name, "addr", "del", f"{client.ip4}/24", "dev", "eth0")
    ip("-n", client.name, "route", "del", "local", PREFIX6, "dev", "eth0", "table", "local")
    sweep(node)
    assert "repaired: dns route IPv4" in caplog.text
    assert "repaired: dns route IPv6 missing" in caplog.text
    four, six = client.run(lambda: tuple(aliases.routes()))
    assert (four.source, six.source) == ("10.99.0.7", client.ip6)


def test_a_dead_pod_is_collected(node: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with pair() as (dying, _):
        node.mesh = mesh(pod_of("demo/client", dying))
        cookie = node.enroll("demo/client", netns=dying.name)["netns"]["cookie"]
        remove(dying.name)
        sweep(node)
    assert node.manager.rows() == []
    assert node.steering.attached == {}
    assert list(node.records.load()) == []
    assert ("detach", cookie) in node.steering.calls
    assert "collected what demo/client left: its namespace is gone" in caplog.text


def test_a_namespace_that_comes_back_within_the_patience_is_not_dead(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[dict[tuple[int, int], str]] = [{}, {client.netns.key: "moved"}]
    monkeypatch.setattr(namespaces, "reachable", lambda: looks.pop(0))
    monkeypatch.setattr(reconciler, "_still_at", lambda _: False)
    sweep(node)
    assert looks == []
    assert len(node.manager.rows()) == 1


def test_what_no_pod_and_no_record_accounts_for_goes_with_its_namespace(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    pod = node.steering.attached[client.netns.cookie()]
    with pair() as (orphan, _):
        other = orphan.netns.cookie()
        node.steering.attached[other] = pod._replace(cookie=other, name="demo/orphan")
        sweep(node, 2)
        row = next(row for row in node.manager.rows() if row["pod"] == "demo/orphan")
        assert row["state"] == "refused"
        assert caplog.text.count("its connections are refused: demo/orphan") == 1
        path = orphan.name
    assert other in node.steering.attached, f"refused while {path} was alive"
    sweep(node)
    assert other not in node.steering.attached
    assert "collected what demo/orphan left" in caplog.text
    assert [row["pod"] for row in node.manager.rows()] == ["demo/client"]


def running(node: Bench, work: Callable[[Reconciler], Awaitable[None]]) -> None:
    """Let a reconciler run on notices alone while `work` is done."""

    async def main() -> None:
        made = Reconciler(node.manager, _steering(node), 3600.0)
        task = asyncio.get_running_loop().create_task(made.run())
        try:
            await work(made)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            node.manager.on_change = bool

    before = open_files()
    asyncio.run(main())
    assert len(open_files()) == len(before)


async def told(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until the log says it."""
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                loop.call_soon_threadsafe(heard.set)

    ear, log = Ear(), logging.getLogger("zproxy")
    log.addHandler(ear)
    try:
        if text not in caplog.text:
            await asyncio.wait_for(heard.wait(), 10)
    finally:
        log.removeHandler(ear)


def test_a_notice_makes_it_look_at_once(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(made: Reconciler) -> None:
        await looked(made, 1)
        await asyncio.to_thread(ip, "-n", client.name, "rule", "del", "pref", "32764")
        await told(caplog, "repaired: rule IPv4")

    running(node, work)
    assert any("0x111" in line for line in rules(client))


async def looked(made: Reconciler, times: int) -> None:
    async with asyncio.timeout(10):
        while made.log.looks < times or made._manager.lock.locked() or not len(made._watches):  # noqa: ASYNC110 - a look has no event of its own
            await asyncio.sleep(0.001)


def test_an_error_of_its_own_does_not_end_it(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(made: Reconciler) -> None:
        await told(caplog, "the reconciler stumbled and goes on")
        monkeypatch.undo()
        made.look(client.netns.cookie())
        await looked(made, 1)

    def stumble(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reconciler, "judge_node", stumble)
    running(node, work)


def test_a_pod_in_which_something_happened_comes_before_those_whose_time_it_is(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []

    async def main() -> None:
        made = Reconciler(node.manager, _steering(node))

        async def look_at(pod: Pod) -> None:
            order.append(pod.cookie)
            if len(order) == 1:
                made.look(3)

        monkeypatch.setattr(made, "_look_at", look_at)
        node.manager.pods = {str(cookie): Stub(cookie) for cookie in (1, 2, 3)}  # type: ignore[misc] # stand in
        made._due = dict.fromkeys((1, 2, 3))
        await made._look_at_asked()

    pods = node.manager.pods
    asyncio.run(main())
    node.manager.pods, node.manager.on_change = pods, bool
    assert order == [1, 3, 2]


class Stub:
    def __init__(self, cookie: int) -> None:
        self.cookie = cookie


def test_what_is_left_of_an_enrolment_that_was_never_finished_goes(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair() as (half, _):
        cookie = half.netns.cookie()
        traces = {client.netns.cookie(), cookie}
        monkeypatch.setattr(node.steering.inspector, "traces", lambda: traces)
        sweep(node)
    assert node.steering.calls[-1] == ("detach", cookie)
    assert [row["pod"] for row in node.manager.rows()] == ["demo/client"]
