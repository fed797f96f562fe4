"""The pods of a node: who may be enrolled, once each, and what a restarted daemon takes up again."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import mesh, workload
from tests.support.netns import Namespace, namespace, pair
from tests.support.podstate import listening, state_of, sysctls
from tests.support.steering import NODE, Bench, bench, open_files, pod_of
from zproxy.errors import EnrollError, SteeringError
from zproxy.model.workload import Protocol
from zproxy.net import namespaces
from zproxy.node.records import Origin, Record
from zproxy.node.refused import Refused
from zproxy.steering.resolvers import PREFIX4

PORTS = [15001, 15006, 15008, 15053]
SYSCTL = "net/ipv4/tcp_tw_reuse"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture
def pods() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as made:
        yield made


@pytest.fixture
def client(node: Bench, pods: tuple[Namespace, Namespace]) -> Namespace:
    """The namespace of demo/client, which the mesh knows; so it does demo/server's."""
    node.mesh = mesh(pod_of("demo/client", pods[0]), pod_of("demo/server", pods[1]))
    return pods[0]


def restart(node: Bench) -> None:
    """End the daemon as SIGTERM does and start the next one on the same records."""
    asyncio.run(node.manager.close())
    node.manager = node.new_manager()
    asyncio.run(node.manager.restore())


@pytest.mark.root
def test_the_row_of_an_enrolled_pod_is_what_the_kernel_says(node: Bench, client: Namespace) -> None:
    row = node.enroll("demo/client", netns=client.name)
    device, inode = client.netns.key
    since = row.pop("since")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", since)
    assert row == {
        "pod": "demo/client",
        "namespace": "demo",
        "name": "client",
        "node": NODE,
        "dns": True,
        "udp": "audit",
        "fail_open": False,
        "attach": "root",
        "cgroup": "",
        "cgroup_why": "no process is in it",
        "ips": list(client.ips),
        "netns": {
            "path": f"/run/netns/{client.name}",
            "dev": device,
            "inode": inode,
            "cookie": client.netns.cookie(),
        },
        "service_account": "client",
        "sandbox": "",
        "pod_uid": "",
        "identity": "spiffe://cluster.local/ns/demo/sa/client",
        "state": "enrolled",
        "reason": "",
        "listeners": PORTS,
        "worker": 0,
        "pid": os.getpid(),
        "changed": True,
    }
    assert [r["pod"] for r in node.manager.rows()] == ["demo/client"]


@pytest.mark.root
def test_enrolling_again_changes_nothing(node: Bench, client: Namespace) -> None:
    first = node.enroll("demo/client", netns=client.name)
    state, files, calls = state_of(client), open_files(), len(node.steering.calls)
    again = node.enroll("demo/client", netns=client.netns.path)
    assert again == first | {"changed": False}
    assert (state_of(client), open_files(), len(node.steering.calls)) == (state, files, calls)


@pytest.mark.root
def test_rows_are_sorted_by_pod(node: Bench, client: Namespace, pods: tuple[Namespace, Namespace]) -> None:
    node.enroll("demo/server", netns=pods[1].name)
    node.enroll("demo/client", netns=client.name)
    assert [row["pod"] for row in node.manager.rows()] == ["demo/client", "demo/server"]


@pytest.mark.root
def test_another_identity_for_an_enrolled_pod_is_refused(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    files = open_files()
    with pytest.raises(
        EnrollError, match=r"enrolled as spiffe://cluster.local/ns/demo/sa/client; .* unenroll it"
    ):
        node.enroll("demo/client", netns=client.name, service_account="other")
    assert open_files() == files


@pytest.mark.root
def test_a_service_account_may_be_given(node: Bench, client: Namespace) -> None:
    row = node.enroll("demo/client", netns=client.name, service_account="other")
    assert (row["service_account"], row["identity"]) == ("other", "spiffe://cluster.local/ns/demo/sa/other")
    assert node.identities() == [row["identity"]]


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        ("client", "'client' is not a pod: write NAMESPACE/NAME"),
        ("demo/", "'demo/' is not a pod"),
        ("/client", "'/client' is not a pod"),
        ("a/b/c", "'a/b/c' is not a pod"),
        ("", "'' is not a pod"),
        (
            "demo/nobody",
            "unknown pod demo/nobody: the mesh has no such workload; `zproxy workloads` lists them",
        ),
        ("demo/far", f"demo/far is on node node-b, this is the daemon of {NODE}"),
        ("demo/nowhere", f"demo/nowhere is on node (none), this is the daemon of {NODE}"),
        (
            "demo/plain",
            "demo/plain has protocol TCP in the mesh; peers would not use HBONE: set `protocol: HBONE`",
        ),
    ],
)
def test_a_pod_that_cannot_be_enrolled_is_a_sentence(node: Bench, pod: str, sentence: str) -> None:
    node.mesh = mesh(
        workload("demo/far", "10.0.0.1", node="node-b"),
        workload("demo/nowhere", "10.0.0.2"),
        workload("demo/plain", "10.0.0.3", node=NODE, protocol=Protocol.TCP),
    )
    with pytest.raises(EnrollError, match=re.escape(sentence)):
        node.enroll(pod)
    assert node.manager.rows() == []


@pytest.mark.root
def test_a_namespace_of_another_pod_is_refused(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    state, files = state_of(client), open_files()
    with pytest.raises(EnrollError, match="is the namespace of demo/client, which is enrolled already"):
        node.enroll("demo/server", netns=client.name)
    assert (state_of(client), open_files()) == (state, files)


@pytest.mark.root
def test_the_daemon_s_own_namespace_is_refused(node: Bench, client: Namespace) -> None:
    files = open_files()
    with pytest.raises(EnrollError, match="the daemon's own network namespace"):
        node.enroll("demo/client", pid=os.getpid())
    assert open_files() == files
    assert node.steering.calls == []


@pytest.mark.root
def test_the_same_pod_in_a_new_namespace_moves_there(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    before = client.netns.cookie()
    with pair("sandbox", "peer") as (sandbox, _):
        node.mesh = mesh(pod_of("demo/client", sandbox))
        row = node.enroll("demo/client", netns=sandbox.name)
        assert (row["changed"], row["netns"]["cookie"]) == (True, sandbox.netns.cookie())
        assert node.steering.calls == [
            ("attach", before),
            ("detach", before),
            ("attach", sandbox.netns.cookie()),
        ]
        assert (listening(client), listening(sandbox)) == ([], PORTS)
        assert len(node.manager.rows()) == 1
        node.unenroll("demo/client")


@pytest.mark.root
def test_a_move_that_fails_leaves_neither(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    with namespace("empty") as empty, pytest.raises(EnrollError, match="its network namespace has none"):
        node.enroll("demo/client", netns=empty.name)
    assert node.manager.rows() == []
    assert node.steering.attached == {}
    assert list(node.records.load()) == []
    assert node.identities() == []


@pytest.mark.root
def test_a_failure_leaves_no_pod_no_record_and_no_descriptor(node: Bench, client: Namespace) -> None:
    state, files = state_of(client), open_files()
    node.steering.failure = SteeringError("the verifier says no")
    with pytest.raises(SteeringError):
        node.enroll("demo/client", netns=client.name)
    assert (state_of(client), open_files()) == (state, files)
    assert node.manager.rows() == []
    assert list(node.records.load()) == []


@pytest.mark.root
def test_a_record_that_cannot_be_written_undoes_the_enrolment(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Record) -> None:
        raise OSError(28, "No space left on device")

    state, files = state_of(client), open_files()
    monkeypatch.setattr(node.records, "save", full)
    with pytest.raises(
        EnrollError, match="cannot write the record of demo/client: No space left on device; is"
    ):
        node.enroll("demo/client", netns=client.name)
    assert (state_of(client), open_files()) == (state, files)
    assert node.manager.rows() == []
    assert node.steering.attached == {}


@pytest.mark.root
def test_enrolments_of_one_pod_at_the_same_time_are_one(node: Bench, client: Namespace) -> None:
    async def at_once() -> list[dict[str, Any]]:
        return await asyncio.gather(
            *(node.manager.enroll("demo/client", netns=client.name) for _ in range(5))
        )

    before = open_files()
    rows = asyncio.run(at_once())
    assert sorted(row["changed"] for row in rows) == [False] * 4 + [True]
    assert [call for call, _ in node.steering.calls] == ["attach"]
    assert sum("net:[" in file or "/run/netns" in file for file in open_files() - before) == 2


@pytest.mark.root
def test_enrolment_and_unenrolment_at_the_same_time_follow_each_other(node: Bench, client: Namespace) -> None:
    async def at_once() -> tuple[dict[str, Any], dict[str, Any]]:
        return await asyncio.gather(
            node.manager.enroll("demo/client", netns=client.name), node.manager.unenroll("demo/client")
        )

    state = state_of(client)
    _, gone = asyncio.run(at_once())
    assert gone["state"] == "unenrolled"
    assert state_of(client) == state
    assert node.manager.rows() == []


@pytest.mark.root
def test_unenrolling_takes_everything_back(node: Bench, client: Namespace) -> None:
    state, files = state_of(client), open_files()
    enrolled = node.enroll("demo/client", netns=client.name)
    row = node.unenroll("demo/client")
    enrolled.pop("changed")
    assert row == enrolled | {"state": "unenrolled"}
    assert (state_of(client), open_files(), node.identities()) == (state, files, [])
    assert list(node.records.load()) == []


def test_what_is_not_enrolled_cannot_be_unenrolled(node: Bench) -> None:
    with pytest.raises(EnrollError, match=f"demo/x is not enrolled on node {NODE}; `zproxy pods` lists"):
        node.unenroll("demo/x")


@pytest.mark.root
def test_without_a_daemon_listeners_are_gone_and_steering_stays(node: Bench, client: Namespace) -> None:
    assert listening(client) == []
    files = open_files()
    node.enroll("demo/client", netns=client.name)
    asyncio.run(node.manager.close())
    assert listening(client) == []
    assert open_files() == files
    assert list(node.steering.attached) == [client.netns.cookie()]
    assert node.identities() == []


@pytest.mark.root
def test_a_restarted_daemon_takes_its_pods_up_again_and_never_in_the_clear(
    node: Bench, client: Namespace
) -> None:
    before = node.enroll("demo/client", netns=client.name)
    restart(node)
    (after,) = node.manager.rows()
    assert after | {"since": before["since"], "changed": True} == before
    assert listening(client) == PORTS
    assert [call for call, _ in node.steering.calls] == ["attach", "attach"]


@pytest.mark.root
def test_after_any_number_of_restarts_unenrolling_gives_back_the_first_values(
    node: Bench, client: Namespace
) -> None:
    client.sysctl("ipv4.tcp_tw_reuse", "2")
    state = state_of(client)
    node.enroll("demo/client", netns=client.name)
    restart(node)
    restart(node)
    node.unenroll("demo/client")
    assert state_of(client) == state


@pytest.mark.root
def test_a_given_service_account_outlives_the_daemon(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name, service_account="other")
    restart(node)
    assert node.manager.rows()[0]["service_account"] == "other"


@pytest.mark.root
def test_one_that_was_not_given_is_the_mesh_s_of_now(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    node.mesh = mesh(pod_of("demo/client", client, service_account="renamed"))
    restart(node)
    assert node.manager.rows()[0]["service_account"] == "renamed"


@pytest.mark.root
def test_a_pod_whose_namespace_is_gone_is_collected(node: Bench) -> None:
    with pair("dying", "peer") as (dying, _):
        node.mesh = mesh(pod_of("demo/client", dying))
        node.enroll("demo/client", netns=dying.name)
        asyncio.run(node.manager.close())
    restart(node)
    assert node.manager.rows() == []
    assert node.steering.attached == {}
    assert list(node.records.load()) == []


@pytest.mark.root
def test_a_name_that_is_another_namespace_by_now_is_a_new_sandbox(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name)
    (record,) = node.records.load()
    asyncio.run(node.manager.close())
    node.steering.attached.clear()
    node.records.save(record._replace(cookie=1, former_sysctls={SYSCTL: "0"}))
    restart(node)
    assert node.steering.calls[-2:] == [("detach", 1), ("attach", client.netns.cookie())]
    node.unenroll("demo/client")
    assert "ipv4/tcp_tw_reuse = 1" in sysctls(client)


@pytest.mark.root
def test_a_name_that_is_another_namespace_by_now_does_not_keep_the_dead_one(
    node: Bench, client: Namespace
) -> None:
    node.records.save(Record("demo/gone", client.netns.path, 1, None, {}))
    state = state_of(client)
    restart(node)
    assert node.steering.calls == [("detach", 1)]
    assert list(node.records.load()) == []
    assert state_of(client) == state


@pytest.mark.root
def test_a_runtimes_pod_is_never_taken_up_by_a_path_that_may_be_anothers(
    node: Bench, client: Namespace
) -> None:
    gone = Record("demo/client", client.netns.path, 1, None, {}, origin=Origin("8d1f", "5a9dc0"))
    node.records.save(gone)
    node.manager = node.new_manager()
    told: list[Record] = []
    node.manager.on_gone = told.append
    asyncio.run(node.manager.restore())
    assert node.steering.calls == [("detach", 1)]
    assert told == [gone]
    assert list(node.records.load()) == []


@pytest.mark.root
def test_where_a_pod_came_from_is_kept_and_told_when_it_is_gone(node: Bench, client: Namespace) -> None:
    origin = Origin("8d1f", "5a9dc0")
    told: list[Record] = []
    node.enroll("demo/client", netns=client.name)
    assert node.enroll("demo/client", netns=client.name, origin=origin)["sandbox"] == "5a9dc0"
    restart(node)
    node.manager.on_gone = told.append
    (row,) = node.manager.rows()
    assert (row["sandbox"], row["pod_uid"]) == ("5a9dc0", "8d1f")
    asyncio.run(node.manager.collect(node.manager.pods["demo/client"]))
    assert [record.origin for record in told] == [origin]


@pytest.mark.root
def test_a_pod_that_cannot_be_taken_up_stays_refused_until_that_is_mended(
    node: Bench, client: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of(client)
    node.enroll("demo/client", netns=client.name)
    asyncio.run(node.manager.close())
    with client.listen(15006):
        restart(node)
        (row,) = node.manager.rows()
        assert (row["pod"], row["state"]) == ("demo/client", "refused")
        assert row["reason"].startswith("port 15006 is in use inside the pod")
        assert list(node.steering.attached) == [client.netns.cookie()]
        asyncio.run(node.manager.restore())
        said = "its connections are refused: demo/client: port 15006 is in use"
        assert caplog.text.count(said) == 1, "the same reason is not said again"
    asyncio.run(node.manager.restore())
    assert node.manager.rows()[0]["state"] == "enrolled", "it is tried again, and the cause has gone"
    node.unenroll("demo/client")
    assert node.enroll("demo/client", netns=client.name)["changed"] is True
    node.unenroll("demo/client")
    assert state_of(client) == state


@pytest.mark.root
def test_a_pod_that_cannot_be_taken_up_can_be_unenrolled(node: Bench, client: Namespace) -> None:
    state = state_of(client)
    node.enroll("demo/client", netns=client.name)
    node.mesh = mesh()
    restart(node)
    assert list(node.steering.attached) == [client.netns.cookie()]
    row = node.unenroll("demo/client")
    assert row == {"pod": "demo/client", "state": "unenrolled", "ips": [], "node": NODE}
    assert node.steering.attached == {}
    assert state_of(client) == state
    with pytest.raises(EnrollError, match="is not enrolled"):
        node.unenroll("demo/client")


@pytest.mark.root
def test_one_pod_that_cannot_be_taken_up_stops_no_other(
    node: Bench, client: Namespace, pods: tuple[Namespace, Namespace]
) -> None:
    node.enroll("demo/client", netns=client.name)
    node.enroll("demo/server", netns=pods[1].name)
    node.mesh = mesh(pod_of("demo/server", pods[1]))
    restart(node)
    assert [(row["pod"], row["state"]) for row in node.manager.rows()] == [
        ("demo/client", "refused"),
        ("demo/server", "enrolled"),
    ]


@pytest.mark.root
def test_other_options_are_taken_up_kept_and_restored(node: Bench, client: Namespace) -> None:
    node.enroll("demo/client", netns=client.name, options={"udp": "block"})
    row = node.enroll("demo/client", netns=client.name, options={"fail_open": True})
    assert (row["changed"], row["fail_open"], row["udp"]) == (True, True, "block")
    assert node.enroll("demo/client", netns=client.name, options={"fail_open": True})["changed"] is False
    restart(node)
    row = node.manager.rows()[0]
    assert (row["dns"], row["udp"], row["fail_open"]) == (True, "block", True)


@pytest.mark.root
def test_an_option_that_there_is_not_is_a_sentence(node: Bench, client: Namespace) -> None:
    with pytest.raises(EnrollError, match="udp is audit or block"):
        node.enroll("demo/client", netns=client.name, options={"udp": "drop"})
    assert node.manager.rows() == []


def is_captured(pod: Namespace) -> bool:
    return PREFIX4 in pod.execute("ip", "route", "show", "table", "local").stdout


@pytest.mark.root
def test_dns_is_captured_unless_it_is_left_alone(node: Bench, client: Namespace) -> None:
    assert node.enroll("demo/client", netns=client.name)["dns"] is True
    assert is_captured(client)
    assert node.enroll("demo/client", netns=client.name, options={"dns": False})["changed"] is True
    assert not is_captured(client)
    assert node.enroll("demo/client", netns=client.name)["dns"] is False
    assert node.enroll("demo/client", netns=client.name, options={"dns": True})["dns"] is True
    assert is_captured(client)


@pytest.mark.root
def test_dns_of_a_pod_that_has_lost_its_addresses_is_captured_when_it_has_some_again(
    node: Bench, client: Namespace
) -> None:
    node.enroll("demo/client", netns=client.name, options={"dns": False})
    client.execute("ip", "addr", "flush", "dev", client.interface)
    assert node.enroll("demo/client", netns=client.name, options={"dns": True})["dns"] is True
    assert not is_captured(client)


@pytest.mark.root
def test_a_given_cgroup_is_kept_and_restored(node: Bench, client: Namespace) -> None:
    row = node.enroll("demo/client", netns=client.name, cgroup="/pods/one")
    assert (row["attach"], row["cgroup"], row["cgroup_why"]) == ("both", "/pods/one", "it was given")
    with pytest.raises(EnrollError, match="is enrolled with /pods/one; to change that, unenroll it first"):
        node.enroll("demo/client", netns=client.name, cgroup="/pods/two")
    assert not node.enroll("demo/client", netns=client.name)["changed"]
    restart(node)
    assert node.steering.examined[-1] == (None, "/pods/one")
    (row,) = node.manager.rows()
    assert row["cgroup"] == "/pods/one"


@pytest.mark.root
def test_a_pod_is_found_again_when_the_process_it_was_named_by_has_ended(
    node: Bench, client: Namespace
) -> None:
    with subprocess.Popen(["ip", "netns", "exec", client.name, "cat"], stdin=subprocess.PIPE) as process:
        entered(process.pid, client)
        row = node.enroll("demo/client", pid=process.pid)
        assert row["netns"]["path"] == f"/proc/{process.pid}/ns/net"
    restart(node)
    (row,) = node.manager.rows()
    assert (row["state"], row["netns"]["path"]) == ("enrolled", f"/run/netns/{client.name}")


def entered(pid: int, pod: Namespace) -> None:
    """Wait until a process is in the namespace of `pod`."""
    ends = time.monotonic() + 10
    while os.stat(f"/proc/{pid}/ns/net").st_ino != pod.netns.key[1]:
        assert time.monotonic() < ends


@pytest.mark.root
def test_the_reconciler_is_told_who_came_and_who_left(node: Bench, client: Namespace) -> None:
    told: list[int] = []
    node.manager.on_change = told.append
    cookie = node.enroll("demo/client", netns=client.name)["netns"]["cookie"]
    node.unenroll("demo/client")
    assert told == [cookie, cookie]


@pytest.mark.root
def test_a_pod_without_a_record_can_be_unenrolled(node: Bench, client: Namespace) -> None:
    cookie = client.netns.cookie()
    node.manager.refuse(Refused("demo/client", client.netns.path, cookie, "there is no record"))
    assert node.unenroll("demo/client")["state"] == "unenrolled"
    assert node.steering.calls == [("detach", cookie)]
    assert node.manager.rows() == []


@pytest.mark.root
def test_a_pod_that_is_unenrolled_while_it_is_restored_stays_out(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.enroll("demo/client", netns=client.name)
    asyncio.run(node.manager.close())
    node.manager = node.new_manager()
    find = namespaces.find

    def unenroll_and_find(*hints: Any) -> Any:
        node.records.remove("demo/client")
        return find(*hints)

    monkeypatch.setattr(namespaces, "find", unenroll_and_find)
    files = open_files()
    asyncio.run(node.manager.restore())
    assert (node.manager.rows(), open_files()) == ([], files)


def test_straws_are_listed_while_nobody_is_being_enrolled(node: Bench) -> None:
    async def listed() -> None:
        async with node.manager.lock:
            asking = asyncio.ensure_future(node.manager.straws())
            done, _ = await asyncio.wait((asking,), timeout=0.05)
            assert not done
        assert await asking == []

    asyncio.run(listed())
