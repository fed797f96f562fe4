"""The mesh snapshot: lookups, and no duplicates."""

import dataclasses
from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model.policy import Authorization, PolicyScope
from zproxy.model.service import NetworkAddress, NetworkCidr, Service
from zproxy.model.workload import NetworkMode, Protocol, ServicePort
from zproxy.state.store import Change, Mesh, Records

CLIENT = workload("demo/client", "10.244.1.5", "fd00:244:1::5")
SERVER = workload("demo/server", "10.244.2.5")


def test_a_workload_is_found_by_each_of_its_addresses() -> None:
    known = mesh(CLIENT, SERVER)
    assert known.by_ip("10.244.1.5") is CLIENT
    assert known.by_ip("fd00:244:1::5") is CLIENT
    assert known.by_ip("10.244.2.5") is SERVER
    assert known.by_ip("10.244.2.6") is None


def test_a_workload_is_found_by_pod_name() -> None:
    known = mesh(CLIENT, SERVER)
    assert known.by_pod("demo/server") is SERVER
    assert known.by_pod("other/server") is None


def test_workloads_keep_their_order() -> None:
    assert mesh(SERVER, CLIENT).workloads == (SERVER, CLIENT)


def test_an_empty_mesh_knows_nobody() -> None:
    assert Mesh.of([]).by_ip("10.0.0.1") is None


def test_one_address_may_exist_on_two_networks() -> None:
    here, there = (workload(f"demo/{n}", "10.0.0.1", network=n) for n in ("net1", "net2"))
    known = mesh(here, there)
    assert known.by_ip("10.0.0.1", "net1") is here
    assert known.by_ip("10.0.0.1", "net2") is there
    assert known.by_ip("10.0.0.1") is None


def test_of_two_workloads_at_one_address_a_pod_is_meant_and_then_one_with_hbone() -> None:
    entry = workload("demo/entry", "10.9.9.9", uid="cluster1/networking.istio.io/WorkloadEntry/demo/entry")
    plain = workload("demo/plain", "10.9.9.9", protocol=Protocol.TCP)
    pod = workload("demo/pod", "10.9.9.9")
    assert mesh(entry, plain).by_ip("10.9.9.9") is plain
    assert mesh(entry, plain, pod).by_ip("10.9.9.9") is pod
    assert mesh(pod, plain, entry).changed(Change(gone_workloads=(pod.uid,))).by_ip("10.9.9.9") is plain


def test_a_workload_on_its_nodes_network_is_not_meant_by_the_nodes_address() -> None:
    agent = workload("demo/agent", "192.0.2.1", network_mode=NetworkMode.HOST_NETWORK)
    assert mesh(agent).by_ip("192.0.2.1") is None
    assert mesh(agent).by_pod("demo/agent") is agent


def test_a_change_makes_a_new_snapshot_and_leaves_the_former_alone() -> None:
    before = mesh(CLIENT, SERVER)
    moved = workload("demo/client", "10.244.1.9")
    after = before.changed(Change((moved,), gone_workloads=(SERVER.uid, "nobody")))
    assert (before.by_ip("10.244.1.5"), before.by_ip("10.244.2.5")) == (CLIENT, SERVER)
    assert [after.by_ip(ip) for ip in ("10.244.1.5", "10.244.1.9", "10.244.2.5")] == [None, moved, None]
    assert after.workloads == (moved,)
    assert after.by_uid(CLIENT.uid) is moved


def test_services_are_found_by_key_name_address_and_range() -> None:
    exact = Service("web", "demo", "web.demo.svc.cluster.local", vips=(NetworkAddress("", "10.96.0.1"),))
    wide = Service("wide", "demo", "wide.test", cidr_vips=(NetworkCidr("", "10.0.0.0", 8),))
    narrow = Service("narrow", "demo", "wide.test", cidr_vips=(NetworkCidr("", "10.96.0.0", 16),))
    known = Mesh.of(services=(exact, wide, narrow))
    assert known.service("demo/web.demo.svc.cluster.local") is exact
    assert known.services_at("10.96.0.1") == (exact,)
    assert known.services_at("10.96.0.1", "other") == ()
    assert [service.name for _, service in known.services_around("10.96.0.1")] == ["narrow"]
    assert known.services_named("wide.test") == (narrow,)


def test_endpoints_may_come_before_their_service() -> None:
    port = ServicePort("demo/web.test", 80, 8080)
    pod = workload("demo/pod", "10.0.0.1", services=("demo/web.test",), service_ports=(port,))
    assert mesh(pod).endpoints("demo/web.test") == (pod,)


def test_endpoints_that_leave_before_their_service_comes_are_none_of_it() -> None:
    of = service("demo/web.test", "10.96.0.1")
    pod = behind(workload("demo/pod", "10.0.0.1"), of)
    known = mesh(pod).changed(Change(gone_workloads=(pod.uid,))).changed(Change(services=(of,)))
    assert known.endpoints(of.key) == ()
    other = workload("demo/pod", "10.0.0.1")
    assert mesh(pod).changed(Change((other,))).changed(Change(services=(of,))).endpoints(of.key) == ()


def test_a_service_that_goes_or_moves_is_found_by_nothing_that_it_had() -> None:
    before = Service(
        "web",
        "demo",
        "web.test",
        vips=(NetworkAddress("", "10.96.0.1"),),
        cidr_vips=(NetworkCidr("", "10.97.0.0", 16), NetworkCidr("", "fd97::", 64)),
    )
    stays = replace(before, name="stays", namespace="other")
    moved = replace(before, vips=(NetworkAddress("", "10.96.0.2"),), cidr_vips=())
    for change in (Change(gone_services=(before.key,)), Change(services=(moved,))):
        after = Mesh.of(services=(before, stays)).changed(change)
        assert after.services_at("10.96.0.1") == (stays,)
        for ip in ("10.97.3.4", "fd97::1"):
            assert [each for _, each in after.services_around(ip)] == [stays]
        assert stays in after.services_named("web.test")
        assert before not in after.services_named("web.test")


def test_a_policy_that_changes_its_scope_is_of_its_former_scope_no_more() -> None:
    everywhere = Authorization("a", "demo", PolicyScope.GLOBAL)
    known = Mesh.of(policies=(everywhere,))
    for scope, of_all, of_its_own in (
        (PolicyScope.NAMESPACE, 0, 1),
        (PolicyScope.WORKLOAD_SELECTOR, 0, 0),
        (PolicyScope.GLOBAL, 1, 0),
    ):
        changed = replace(everywhere, scope=scope)
        known = known.changed(Change(policies=(changed,)))
        assert known.policies_of("") == (changed,) * of_all
        assert known.policies_of("demo") == (changed,) * of_its_own
        assert known.policy("demo/a") is changed


def test_policies_are_found_by_key_and_scope() -> None:
    local, everywhere, selecting = (
        Authorization(name, "istio", scope)
        for name, scope in zip(
            "abc", (PolicyScope.NAMESPACE, PolicyScope.GLOBAL, PolicyScope.WORKLOAD_SELECTOR), strict=True
        )
    )
    known = Mesh.of(policies=(local, everywhere, selecting))
    assert known.policies_of("istio") == (local,)
    assert known.policies_of("") == (everywhere,)
    assert known.policy("istio/c") is selecting


def test_a_snapshot_never_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        mesh(CLIENT)._workloads = {}  # type: ignore[misc]  # that it is refused is the point


def test_repr_is_short() -> None:
    assert repr(mesh(CLIENT, SERVER)) == "Mesh(2 workloads, 0 services, 0 policies)"


def test_the_change_to_other_records_leads_there() -> None:
    gone = Service("web", "demo", "web.test")
    policy = Authorization("deny", "demo")
    moved = workload("demo/client", "10.244.1.9")
    before = mesh(CLIENT, SERVER, gone)
    change = Change.to(Records([moved], [], [policy]), before)
    assert [len(part) for part in change] == [1, 0, 1, 1, 1, 0]
    after = before.changed(change)
    assert (after.workloads, after.services, after.policies) == ((moved,), (), (policy,))
    assert Change.to(Records([workload("demo/client", "10.244.1.9")], [], [policy]), after).is_empty
