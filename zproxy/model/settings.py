"""What an operator chooses about decisions, for all pods of a node: options of `zproxy run`."""

import re
from enum import Enum
from typing import Final, NamedTuple

CLUSTER_DOMAIN: Final = "cluster.local"
"""What names of services end in unless the cluster's operator chose otherwise; ztunnel's default too."""
MAX_DOMAIN: Final = 253
"""Characters of a name in text (RFC 1035 3.1: 255 octets on the wire)."""
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
"""RFC 1123 2.1, as Kubernetes has it."""


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
    cluster_domain: str = CLUSTER_DOMAIN
    """What names of services end in, `web.shop.svc.cluster.local`: ztunnel's CLUSTER_DOMAIN. Lower-case."""
    preferred_service_namespace: str = ""
    """Of services with one hostname that are neither in the client's namespace nor canonical, the one in this
    namespace comes first, for DNS: ztunnel's PREFERED_SERVICE_NAMESPACE. Empty is none."""


DEFAULT_SETTINGS: Final = Settings()


def domain_of(text: str) -> str:
    """Return a domain as it is compared: lower-case, without the dot behind it; raise ValueError for none."""
    domain = text.removesuffix(".")
    if len(domain) > MAX_DOMAIN or not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise ValueError(f"{text[:60]!r} is no domain; write one such as {CLUSTER_DOMAIN}")
    return domain.lower()


def namespace_of(text: str) -> str:
    """Return a Kubernetes namespace, lower-case, or the empty text for none; raise ValueError otherwise."""
    if text and not _LABEL.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no namespace; write its name, of a-z, 0-9 and - (at most 63)")
    return text.lower()
