"""Connections as values: direction, pool key, and why one ended."""

from enum import Enum
from typing import NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId


class Direction(Enum):
    """Seen from the pod: its own egress, or what reaches it."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class PoolKey(NamedTuple):
    """What may share a tunnel. The application port is NEVER part of it; two identities NEVER share one."""

    src_identity: SpiffeId
    dst_identity: SpiffeId
    src_ip: str
    dst: Endpoint
    """Peer pod IP and port 15008."""
