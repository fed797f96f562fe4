"""Connections as values: direction, pool key, and why one ended."""

from enum import Enum
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId


class Direction(Enum):
    """Seen from the pod: its own egress, or what reaches it."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class Flag(Enum):
    """Istio's response_flags for TCP: the coarse reason of an end, as dashboards and alerts know it."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"
    CERT_REVOKED = "CERT_REVOKED"


_FLAGS: Final = {flag.value: flag for flag in Flag} | {"": Flag.NONE, "IDENTITY": Flag.IDENTITY_ERROR}


def flag_of(reason: str) -> Flag:
    """Return the flag of a record's `reason`; CONNECT, as in ztunnel, for every finer one without its own."""
    return _FLAGS.get(reason, Flag.CONNECT)


class PoolKey(NamedTuple):
    """What may share a tunnel. The application port is NEVER part of it; two identities NEVER share one."""

    src_identity: SpiffeId
    dst_identities: tuple[str, ...]
    """Sorted URIs, one of which the peer must prove; NEVER empty."""
    src_ip: str
    dst: Endpoint
    """Peer IP and, but for gateways of other networks, port 15008."""
    dst_uid: str = ""
    """Whom the mesh has there: when it is somebody else, tunnels lead to nobody that was meant."""
