"""Kinds of text that several records of the local configuration use.

All text is restricted to characters that need no quoting in a SPIFFE ID, a header or a log line.
"""

import ipaddress
import re
from typing import Final, NamedTuple

from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress
from zproxy.model.workload import Status
from zproxy.sources.document import Node, Place
from zproxy.sources.fields import Fields, Text, checked, text_of

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_WORDS: Final = r"[A-Za-z0-9][A-Za-z0-9._:/@+~-]*"
NAMESPACE: Final = Text("a Kubernetes namespace (a-z, 0-9 and -)", re.compile(_LABEL), 63)
NAME: Final = Text("a Kubernetes name (a-z, 0-9, - and .)", re.compile(_SUBDOMAIN), 253)
HOSTNAME: Final = Text("a host name (a-z, 0-9, - and .)", NAME.pattern, 253)
SERVICE_HOSTNAME: Final = Text(
    "a host name, or *. and one for all below it", re.compile(rf"(?:\*\.)?{_SUBDOMAIN}"), 253
)
TRUST_DOMAIN: Final = Text("a trust domain (a-z, 0-9, ., - and _)", re.compile(r"[a-z0-9._-]+"), 255)
UID: Final = Text(
    "a unique id such as cluster1//Pod/namespace/name (no spaces, quotes or commas)",
    re.compile(_WORDS),
    1024,
)
DESCRIPTION: Final = Text("a label (letters, digits and ._:/@+~-)", re.compile(rf"(?:{_WORDS})?"), 253)
NETWORK: Final = Text("a network (letters, digits and ._:@+~-)", re.compile(r"[A-Za-z0-9._:@+~-]*"), 253)
SERVICE: Final = Text(
    "a service as namespace/hostname", re.compile(rf"{_LABEL}/(?:\*\.)?{_SUBDOMAIN}"), 63 + 1 + 253
)
_POLICY_NAME: Final = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
"""Names that istiod gives have underscores: `istio_converted_static_strict`."""
POLICY_NAME: Final = Text("a policy's name (a-z, 0-9, -, . and _)", re.compile(_POLICY_NAME), 253)
POLICY: Final = Text("a policy as namespace/name", re.compile(rf"{_LABEL}/{_POLICY_NAME}"), 63 + 1 + 253)
_ADDRESS: Final = Text("network/ip, or /ip on the nameless network", re.compile(r"[^/]*/[^/]+"), 320)
_DESTINATION: Final = Text("network/ip or namespace/hostname", re.compile(r"[^/]*/[^/]+"), 63 + 1 + 253)
PORTS: Final = (1, 65535)
PORT_NAME: Final = Text(
    "a port's name (a-z, 0-9 and single - between them, one letter at least, as in RFC 6335 5.1)",
    re.compile(r"(?=[0-9-]*[a-z])[a-z0-9](?:-?[a-z0-9])*"),
    15,
)
STATUSES: Final = {status.value: status for status in Status}
GATEWAY_KEYS: Final = ("destination", "hboneMtlsPort")


class Block(NamedTuple):
    """A range of addresses; `ip` is its first one."""

    ip: str
    length: int


def gateway(fields: Fields, key: str) -> GatewayAddress | None:
    """Return the waypoint or gateway under `key`; None where there is no such key."""
    node = fields.node(key)
    return None if node is None else gateway_of(node, fields.place(key))


def gateway_of(node: Node, here: Place) -> GatewayAddress:
    """Return the waypoint or gateway that `node` describes."""
    inner = Fields(node, here, GATEWAY_KEYS)
    text = inner.text("destination", _DESTINATION)
    port = inner.number("hboneMtlsPort", *PORTS, 15008)
    try:
        return GatewayAddress(_network_address(text), port)
    except ValueError:
        name = checked(text, SERVICE, inner.place("destination"))
    namespace, _, hostname = name.partition("/")
    return GatewayAddress(NamespacedHostname(namespace, hostname), port)


def address_of(node: Node, place: Place) -> NetworkAddress:
    """Return the `network/ip` that `node` is."""
    text = text_of(node, _ADDRESS, place)
    try:
        return _network_address(text)
    except ValueError:
        raise place.error(f"{text!r} is not {_ADDRESS.says}") from None


def block_of(text: str, place: Place) -> Block:
    """Return the range that `text` is, `ip/length` or one address; bits behind the prefix must be 0."""
    try:
        network = ipaddress.ip_network(text if "%" not in text else "")
    except ValueError as error:
        hint = "; bits behind the prefix are set" if "host bits" in str(error) else ""
        raise place.error(f"{text[:60]!r} is not an address range such as 10.0.0.0/8{hint}") from None
    return Block(str(network.network_address), network.prefixlen)


def _network_address(text: str) -> NetworkAddress:
    network, _, ip = text.partition("/")
    if NETWORK.pattern.fullmatch(network) is None or "%" in ip:
        raise ValueError(text)
    return NetworkAddress(network, str(ipaddress.ip_address(ip)))
