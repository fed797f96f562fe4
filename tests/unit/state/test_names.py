import pytest

from tests.support.mesh import mesh, workload
from tests.support.names import CLIENT, PREFERRED, asker, kubernetes, names_mesh
from zproxy.state.names import (
    Alias,
    Asker,
    Target,
    addresses,
    aliases,
    find,
    is_known,
    names_of,
    targets,
    wildcards,
)
from zproxy.state.trace import Trace

MESH = names_mesh()


def full_names(name: str) -> list[str]:
    return [each.name for each in aliases(Asker(CLIENT, search=("example.com",)), name)][1:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", ["name.ns1.svc.cluster.local"]),
        ("name.ns2", ["name.ns2.svc.cluster.local", "name.ns2.ns1.svc.cluster.local"]),
        ("name.ns2.svc", ["name.ns2.svc.cluster.local", "name.ns2.svc.svc.cluster.local"]),
        ("name.ns2.not-svc", ["name.ns2.not-svc.svc.cluster.local"]),
        ("pod.sub-domain.ns.svc", ["pod.sub-domain.ns.svc.cluster.local"]),
        ("pod.sub-domain.ns.not-svc", []),
        ("name.ns2.svc.cluster", []),
        ("name.ns2.svc.cluster.local", []),
        ("www.google.com", ["www.google.com.svc.cluster.local"]),
    ],
)
def test_what_kubernetes_lets_one_leave_out(name: str, expected: list[str]) -> None:
    assert full_names(name) == expected


def test_wildcards_from_the_longest_to_the_shortest() -> None:
    assert list(wildcards("svc1")) == ["svc1"]
    assert list(wildcards("svc1.ns1.svc.cluster.local")) == [
        "svc1.ns1.svc.cluster.local",
        "*.ns1.svc.cluster.local",
        "*.svc.cluster.local",
        "*.cluster.local",
        "*.local",
    ]


def test_the_search_list_is_the_one_of_kubernetes_where_the_pod_has_none() -> None:
    assert Asker(CLIENT).suffixes == ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert Asker(CLIENT, "mesh.test").suffixes == ("ns1.svc.mesh.test", "svc.mesh.test", "mesh.test")
    assert Asker(CLIENT, search=("corp.test",)).suffixes == ("corp.test",)


def test_a_suffix_outside_the_cluster_leaves_a_name_in_full() -> None:
    there = list(aliases(Asker(CLIENT, search=("corp.test", "cluster.local")), "db.corp.test"))
    assert there == [Alias("db.corp.test"), Alias("db.corp.test.svc.cluster.local"), Alias("db", "db")]


def test_nothing_is_left_of_a_suffix() -> None:
    assert Alias("", "") not in list(aliases(Asker(CLIENT), "svc.cluster.local"))


@pytest.mark.parametrize(
    ("name", "canonical", "ips"),
    [
        ("www.google.com", "", "1.1.1.1"),
        ("www.google.com.ns1.svc.cluster.local", "www.google.com", "1.1.1.1"),
        ("productpage.ns1.svc.cluster.local", "", "9.9.9.9"),
        ("productpage.ns1", "", "9.9.9.9"),
        ("productpage", "", "9.9.9.9"),
        ("productpage.ns1.ns1.svc.cluster.local", "productpage.ns1", "9.9.9.9"),
        ("example.ns2", "", "10.10.10.10"),
        ("example.ns2.svc.cluster.local", "", "10.10.10.10"),
        ("example.ns2.svc", "", "10.10.10.10"),
        ("details.ns2.svc.cluster.remote", "", "11.11.11.11 12.12.12.12 13.13.13.13 14.14.14.14"),
        ("dual.localhost", "", "2.2.2.3 2001:db8::ff00:42:8330"),
        ("ipv6.localhost", "", "2001:db8::ff00:42:8329"),
        ("ipv4.localhost", "", "2.2.2.2"),
        ("foo.wildcard", "", "10.10.10.12"),
        ("a.b.wildcard", "", "11.11.11.12"),
        ("foo.svc.mesh.company.net", "", "10.1.2.3"),
        ("foo.foons.svc.mesh.company.net", "", "10.1.2.3"),
        ("foo.svc.mesh.company.net.ns1.svc.cluster.local", "", "10.1.2.3"),
        ("nw2-only.ns1.svc.cluster.local", "", ""),
        ("both-networks.ns1.svc.cluster.local", "", "21.21.21.21"),
        ("headless.ns1.svc.cluster.local", "", "30.30.30.30 2001:db8::30 31.31.31.31 2001:db8::31"),
        ("headless-ipv6.ns1.svc.cluster.local", "", "2001:db8::33"),
        ("preferred.io", "", "10.10.10.211"),
        ("everywhere.io", "", "10.10.10.112"),
        ("canonical.io", "", "10.10.10.141"),
        ("empty", "", ""),
        ("patient.ns1", "", "36.36.36.36"),
        # What ztunnel leaves to others: pods within a headless service.
        ("headless0.headless.ns1.svc.cluster.local", "", "30.30.30.30 2001:db8::30"),
        ("headless0.headless", "", "30.30.30.30 2001:db8::30"),
        ("headless0.headless.ns1", "", "30.30.30.30 2001:db8::30"),
        ("headless0.headless.ns1.svc", "", "30.30.30.30 2001:db8::30"),
        ("31-31-31-31.headless.ns1.svc.cluster.local", "", "31.31.31.31 2001:db8::31"),
        ("2001-db8--31.headless.ns1.svc.cluster.local", "", "31.31.31.31 2001:db8::31"),
    ],
)  # fmt: skip
def test_what_a_name_means(name: str, canonical: str, ips: str) -> None:
    found = find(MESH, asker(), name)
    assert found is not None
    assert is_known(asker(), found)
    assert found.canonical == canonical
    assert " ".join(addresses(MESH, asker(), found)) == ips


@pytest.mark.parametrize(
    "name",
    [
        "example",
        "details.ns2",
        "www.bing.com",
        "hidden.ns2.svc.cluster.local",
        "headless.pod0.ns1.svc.cluster.local",
        "headless.pod0.ns1",
        "nobody.headless.ns1.svc.cluster.local",
        "sick.headless.ns1.svc.cluster.local",
        "elsewhere.headless.ns1.svc.cluster.local",
        "client.headless.ns1.svc.cluster.local",
        "client.productpage.ns1.svc.cluster.local",
        "9-9-9-9.headless.ns1.svc.cluster.local",
        "wildcard",
        "",
        "..",
    ],
)
def test_what_the_mesh_does_not_know(name: str) -> None:
    assert find(MESH, asker(), name) is None


@pytest.mark.parametrize("name", ["headless.example.com", "headless-no-endpoints.example.com"])
def test_who_is_outside_and_has_no_address_is_for_dns_to_find(name: str) -> None:
    found = find(MESH, asker(), name)
    assert found is not None
    assert not is_known(asker(), found)
    assert targets(MESH, asker(), f"_80._tcp.{name}") is None


def test_a_hidden_service_is_found_in_its_own_namespace() -> None:
    inside = Asker(workload("ns2/other", "10.0.0.2", network="nw1"))
    found = find(MESH, inside, "hidden")
    assert found is not None
    assert addresses(MESH, inside, found) == ("10.10.10.11",)


def test_the_domain_of_the_cluster_may_be_another() -> None:
    there = kubernetes("db", "ns1", "10.10.0.1")
    other = Asker(CLIENT, "corp.test")
    assert find(mesh(there), other, "db") is None
    assert find(mesh(there), other, "db.ns1.svc.cluster.local") is not None


def test_a_trace_tells_what_was_tried() -> None:
    trace = Trace()
    assert find(MESH, asker(), "example", trace) is None
    assert [(each.subject, each.outcome, each.detail) for each in trace.steps] == [
        ("name", "no match", "example"),
        ("name", "no match", "example.ns1.svc.cluster.local"),
    ]


PRODUCTPAGE = "productpage.ns1.svc.cluster.local"
ENDPOINTS = (
    Target("headless0.headless.ns1.svc.cluster.local", 80, ("30.30.30.30", "2001:db8::30")),
    Target("headless1.headless.ns1.svc.cluster.local", 80, ("31.31.31.31", "2001:db8::31")),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"_http._tcp.{PRODUCTPAGE}", (Target(PRODUCTPAGE, 80, ("9.9.9.9",)),)),
        ("_http._tcp.productpage", (Target(PRODUCTPAGE, 80, ("9.9.9.9",)),)),
        ("_9090._tcp.productpage.ns1", (Target(PRODUCTPAGE, 9090, ("9.9.9.9",)),)),
        ("_metrics._udp.productpage", (Target(PRODUCTPAGE, 9090, ("9.9.9.9",)),)),
        ("productpage", (Target(PRODUCTPAGE, 80, ("9.9.9.9",)), Target(PRODUCTPAGE, 9090, ("9.9.9.9",)))),
        ("_http._tcp.headless", ENDPOINTS),
        ("_80._tcp.headless.ns1.svc.cluster.local", ENDPOINTS),
        ("_http._tcp.headless0.headless.ns1.svc.cluster.local", ENDPOINTS[:1]),
        ("_80._tcp.empty", ()),
        ("_81._tcp.productpage", None),
        ("_https._tcp.productpage", None),
        ("_http._sctp.productpage", None),
        ("_http._tcp.nobody", None),
        ("_http._tcp", None),
    ],
)
def test_who_serves_a_port(name: str, expected: tuple[Target, ...] | None) -> None:
    assert targets(MESH, asker(), name) == expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("9.9.9.9", (PRODUCTPAGE,)),
        ("10.10.10.11", ()),
        ("10.10.10.12", ()),
        ("20.20.20.20", ()),
        ("30.30.30.30", ("headless0.headless.ns1.svc.cluster.local",)),
        ("2001:db8::31", ("headless1.headless.ns1.svc.cluster.local",)),
        ("32.32.32.32", ()),
        ("10.0.0.1", ()),
        ("192.0.2.1", ()),
    ],
)
def test_what_an_address_is_called(ip: str, expected: tuple[str, ...]) -> None:
    assert names_of(MESH, asker(), ip) == expected


def test_of_several_names_the_preferred_comes_first() -> None:
    shared = mesh(
        kubernetes("b", "ns2", "10.9.9.9"),
        kubernetes("c", PREFERRED, "10.9.9.9"),
        kubernetes("a", "ns1", "10.9.9.9"),
    )
    assert names_of(shared, asker(), "10.9.9.9")[0] == "a.ns1.svc.cluster.local"
    assert len(names_of(shared, asker(), "10.9.9.9")) == 3
