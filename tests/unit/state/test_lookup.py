"""Which service an address or a name means: shared addresses, ranges, visibility, preference."""

from dataclasses import replace

import pytest

from tests.support.mesh import mesh, service
from zproxy.model.service import NetworkAddress, NetworkCidr, Service, Visibility
from zproxy.state.lookup import service_at, service_named
from zproxy.state.trace import Trace

DEMO = service("demo/web.example.com", "10.96.0.1")
SHOP = service("shop/web.example.com", "10.96.0.1")
CANONICAL = replace(service("other/web.example.com", "10.96.0.1"), canonical=True)


def hidden(of: Service) -> Service:
    return replace(of, visibility=Visibility.NAMESPACE)


def ranged(key: str, *cidrs: str) -> Service:
    parts = [cidr.partition("/") for cidr in cidrs]
    return replace(service(key), cidr_vips=tuple(NetworkCidr("", ip, int(size)) for ip, _, size in parts))


WIDE = ranged("demo/wide.test", "10.0.0.0/8", "fd00::/32")
NARROW = ranged("shop/narrow.test", "10.96.0.0/16", "fd00::/48")


@pytest.mark.parametrize(
    ("known", "namespace", "expected"),
    [
        ((DEMO, SHOP), "demo", DEMO),
        ((DEMO, SHOP), "shop", SHOP),
        ((DEMO, SHOP, CANONICAL), "elsewhere", CANONICAL),
        ((DEMO, SHOP, CANONICAL), "shop", SHOP),
        ((DEMO, SHOP), "elsewhere", DEMO),
        ((hidden(DEMO), SHOP), "shop", SHOP),
        ((hidden(DEMO), SHOP), "elsewhere", SHOP),
        ((hidden(DEMO),), "elsewhere", None),
        ((hidden(DEMO),), None, hidden(DEMO)),
        ((hidden(DEMO),), "demo", hidden(DEMO)),
    ],
    ids=[
        "the client's own",
        "the client's own, the other way",
        "the canonical one",
        "one's own before the canonical one",
        "the first by key",
        "hidden from others",
        "hidden from a third",
        "hidden from all others",
        "shown where the namespace is not known",
        "shown at home",
    ],
)
def test_services_of_one_address_and_name(
    known: tuple[Service, ...], namespace: str | None, expected: Service | None
) -> None:
    assert service_at(mesh(*known), "", "10.96.0.1", namespace) == expected
    assert service_named(mesh(*known), "web.example.com", namespace) == expected


@pytest.mark.parametrize(
    ("known", "ip", "namespace", "expected"),
    [
        ((WIDE, NARROW), "10.96.3.4", "elsewhere", NARROW),
        ((WIDE, NARROW), "10.97.3.4", "elsewhere", WIDE),
        ((WIDE, NARROW), "10.96.3.4", "demo", WIDE),
        ((WIDE, NARROW), "fd00::7", "elsewhere", NARROW),
        ((WIDE, NARROW), "fd00:0:1::7", "elsewhere", WIDE),
        ((WIDE, NARROW), "11.0.0.1", "demo", None),
        ((WIDE, NARROW), "fe00::1", "demo", None),
        ((WIDE, DEMO), "10.96.0.1", "elsewhere", DEMO),
        ((WIDE, hidden(DEMO)), "10.96.0.1", "elsewhere", WIDE),
        ((hidden(WIDE), NARROW), "10.96.0.1", "elsewhere", NARROW),
        ((hidden(NARROW),), "10.96.0.1", "elsewhere", None),
        (
            (replace(WIDE, canonical=True), ranged("aaa/same.test", "10.0.0.0/8")),
            "10.1.1.1",
            "x",
            "wide.test",
        ),
        ((ranged("demo/all.test", "0.0.0.0/0"),), "192.0.2.1", "demo", "all.test"),
        ((ranged("demo/all.test", "0.0.0.0/0"),), "fd00::1", "demo", None),
        ((ranged("demo/one.test", "10.1.1.1/32"),), "10.1.1.1", "demo", "one.test"),
    ],
    ids=[
        "the longest prefix",
        "outside of it",
        "one's own namespace before a longer prefix",
        "the longest prefix, IPv6",
        "outside of it, IPv6",
        "no range",
        "no range, IPv6",
        "an exact address before any range",
        "a hidden exact address leaves it to the range",
        "a hidden range",
        "a hidden range and nothing else",
        "the canonical one of equal ranges",
        "everything",
        "everything of the other family",
        "a range of one",
    ],
)
def test_ranges(known: tuple[Service, ...], ip: str, namespace: str, expected: Service | str | None) -> None:
    found = service_at(mesh(*known), "", ip, namespace)
    assert (found and found.hostname) == (expected.hostname if isinstance(expected, Service) else expected)


def test_addresses_and_ranges_mean_something_on_their_network_only() -> None:
    there = replace(
        service("demo/there.test"),
        vips=(NetworkAddress("net2", "10.96.0.1"),),
        cidr_vips=(NetworkCidr("net2", "10.0.0.0", 8),),
    )
    assert service_at(mesh(there), "", "10.96.0.1", "demo") is None
    assert service_at(mesh(there), "", "10.1.1.1", "demo") is None
    assert service_at(mesh(there), "net2", "10.96.0.1", "demo") is there
    assert service_at(mesh(there), "net2", "10.1.1.1", "demo") is there


def test_the_trace_says_who_was_preferred_to_whom() -> None:
    trace = Trace()
    service_at(mesh(DEMO, SHOP), "", "10.96.0.1", "shop", trace)
    assert [(step.subject, step.outcome) for step in trace.steps] == [("service", "found")]
    assert trace.steps[0].detail == ("10.96.0.1 is shop/web.example.com; preferred to demo/web.example.com")
