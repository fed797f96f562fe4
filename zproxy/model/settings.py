"""What an operator chooses about decisions, for all pods of a node: options of `zproxy run`."""

from enum import Enum
from typing import Final, NamedTuple


class OutboundPolicy(Enum):
    """What becomes of a destination that the mesh does not know; the words are Istio's."""

    ALLOW_ANY = "allow_any"
    REGISTRY_ONLY = "registry_only"


class WaypointPolicy(Enum):
    """What becomes of a connection whose waypoint cannot be found."""

    MUST_TRAVERSE = "must_traverse"
    """It is refused, as by ztunnel."""
    PREFER = "prefer"
    """It goes past the waypoint, and so past the waypoint's policies."""


class Compat(Enum):
    """Whose choice holds where ztunnel fails open, or sends a connection where nobody meant it to go."""

    ZPROXY = "zproxy"
    """Deny what cannot be judged; a workload's own address is in no service's range."""
    ZTUNNEL = "ztunnel"
    """Behave as ztunnel does."""


class Balancing(Enum):
    """How one of several equal endpoints is chosen."""

    LEAST_REQUEST = "least_request"
    """Of two drawn at random, the one with fewer of this node's connections for its weight."""
    RANDOM = "random"
    """At random by weight, as in ztunnel."""


class Settings(NamedTuple):
    """The defaults are the safe ones."""

    outbound_policy: OutboundPolicy = OutboundPolicy.ALLOW_ANY
    waypoint_policy: WaypointPolicy = WaypointPolicy.MUST_TRAVERSE
    compat: Compat = Compat.ZPROXY
    balancing: Balancing = Balancing.LEAST_REQUEST
    outlier_ejection: bool = True
    """Whether endpoints that could not be reached lately are left out for a while."""
    connect_retries: int = 1
    """Other endpoints of a service that are tried when one cannot be reached."""
    trust_labels: bool = False
    """Whether the labels that any peer claims for itself are believed, as ztunnel does; else only those from
    gateways and waypoints are."""


DEFAULT_SETTINGS: Final = Settings()
