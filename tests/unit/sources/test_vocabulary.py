"""Addresses, ranges and references as they are written."""

from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress
from zproxy.sources.document import Place, Scalar, parse
from zproxy.sources.vocabulary import Block, address_of, block_of, gateway_of

PLACE = Place(Path("mesh.yaml"), 1, "key")


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("/10.0.0.1", NetworkAddress("", "10.0.0.1")),
        ("net-1/FD00:0::1", NetworkAddress("net-1", "fd00::1")),
        ("demo/gw.demo.svc.cluster.local", NamespacedHostname("demo", "gw.demo.svc.cluster.local")),
    ],
)
def test_references(text: str, destination: NetworkAddress | NamespacedHostname) -> None:
    node = parse(f"destination: '{text}'", PLACE.path)
    assert node is not None
    assert gateway_of(node, PLACE) == GatewayAddress(destination)


@pytest.mark.parametrize("text", ["10.0.0.1", "/", "Demo/gw", "a/b/c", "/10.0.0.1%eth0", "net 1/10.0.0.1"])
def test_references_to_nothing_are_refused(text: str) -> None:
    node = parse(f"destination: '{text}'", PLACE.path)
    assert node is not None
    with pytest.raises(ConfigError):
        gateway_of(node, PLACE)


def test_addresses_are_canonical() -> None:
    assert address_of(Scalar(1, "/FD00:0::1", True), PLACE) == NetworkAddress("", "fd00::1")


@pytest.mark.parametrize(
    ("text", "block"),
    [("10.0.0.0/8", Block("10.0.0.0", 8)), ("10.0.0.1", Block("10.0.0.1", 32)), ("::/0", Block("::", 0))],
)
def test_ranges(text: str, block: Block) -> None:
    assert block_of(text, PLACE) == block
