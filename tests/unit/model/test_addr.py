"""Endpoints and canonical addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.model.addr import Endpoint, canonical_ip

addresses = st.ip_addresses()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.244.1.5", "10.244.1.5"),
        ("::ffff:10.244.1.5", "10.244.1.5"),
        ("::FFFF:0af4:0105", "10.244.1.5"),
        ("FD00:0244:0001:0000:0000:0000:0000:0005", "fd00:244:1::5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::", "::"),
    ],
)
def test_an_address_has_one_text(text: str, canonical: str) -> None:
    assert canonical_ip(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "localhost", "10.0.0", "10.0.0.256", "010.0.0.1", "1::2::3", "10.0.0.1/24"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        canonical_ip(text)


def test_a_peer_cannot_fill_the_cache_with_long_scopes() -> None:
    before = canonical_ip.cache_info().currsize
    with pytest.raises(ValueError, match="not an IP address"):
        canonical_ip("fe80::1%" + "x" * 65536)
    assert canonical_ip.cache_info().currsize == before


@given(addresses)
def test_canonical_text_is_a_fixed_point(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    once = canonical_ip(str(address))
    assert canonical_ip(once) == once


@given(addresses, st.integers(1, 65535))
def test_endpoint_text_parses_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    endpoint = Endpoint(canonical_ip(str(address)), port)
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1:80", Endpoint("10.0.0.1", 80)),
        ("[fd00::1]:80", Endpoint("fd00::1", 80)),
        ("[::ffff:10.0.0.1]:65535", Endpoint("10.0.0.1", 65535)),
    ],
)
def test_endpoints_parse(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:" + "9" * 5000,
        "10.0.0.1:+80",
        "10.0.0.1:8 0",
        "10.0.0.1:٨٠",
        "fd00::1:80",
        "[fd00::1]",
        "[fd00::1]80",
        "[10.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "10.0.0.1%x:80",
        "server:80",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Endpoint.parse(text)


def test_family_follows_the_address() -> None:
    assert Endpoint("fd00::1", 1).is_v6
    assert not Endpoint("10.0.0.1", 1).is_v6
