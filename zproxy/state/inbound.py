"""Inbound decision: whether a CONNECT that reached a pod's 15008 may go on to the app, and to which port.

The checks, their order and their statuses are ztunnel's, so that peers and tools see what they know:
authority parses (400), names this pod (400), a hostname resolves (503), port is not ours (503). Then the
peers are known, and policy is asked (zproxy.state.policy, 401).
"""

import re
from typing import Final, NamedTuple

from zproxy.model import ports
from zproxy.model.addr import Endpoint

_HOSTNAME: Final = re.compile(r"(?=.{1,253}:)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?:([0-9]{1,5})")
_SHOWN: Final = 80
"""Characters of a peer's authority that a reason repeats."""


class Admit(NamedTuple):
    """Connect the stream to `target`, a port of this pod."""

    target: Endpoint


class Reject(NamedTuple):
    """Answer the CONNECT with `status`; `reason` is a sentence for the operator."""

    status: int
    reason: str


def admit(connection_dst: Endpoint, authority: str) -> Admit | Reject:
    """Decide on a CONNECT for `authority` over a connection to `connection_dst`, an address of the pod."""
    try:
        target = Endpoint.parse(authority)
    except ValueError:
        return _not_an_address(authority)
    if target.ip != connection_dst.ip:
        return Reject(400, f"ip mismatch: {connection_dst.ip} != {target.ip}")
    if target.port in ports.ILLEGAL:
        return Reject(503, f"attempted recursive call to ourselves: {target} is a listener of the mesh proxy")
    return Admit(target)


def _not_an_address(authority: str) -> Reject:
    shown = repr(authority[:_SHOWN])
    hostname = _HOSTNAME.fullmatch(authority)
    if hostname is not None and 0 < int(hostname[1]) < 65536:
        return Reject(503, f"no service or workload for hostname: {shown}")
    return Reject(400, f"invalid CONNECT address: {shown} is neither ip:port nor host:port")
