"""L4 authorization policies, in the vocabulary of Istio's authorization API. What they mean: zproxy.state.

A rule is a list of clauses, all of which must match; a clause is a list of matches, any of which suffices.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Action(Enum):
    """What a policy does to a connection that it matches."""

    ALLOW = "Allow"
    DENY = "Deny"


class PolicyScope(Enum):
    """Which workloads a policy applies to."""

    GLOBAL = "Global"
    NAMESPACE = "Namespace"
    """Those of the policy's namespace."""
    WORKLOAD_SELECTOR = "WorkloadSelector"
    """Those that name it in their `authorizationPolicies`."""


class StringKind(Enum):
    """How a text is compared."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    SUFFIX = "Suffix"
    PRESENCE = "Presence"
    """Any text but the empty one."""


class StringMatch(NamedTuple):
    """A condition on a text."""

    kind: StringKind
    value: str = ""

    def __str__(self) -> str:
        if self.kind is StringKind.PREFIX:
            return f"{self.value}*"
        if self.kind is StringKind.SUFFIX:
            return f"*{self.value}"
        return "*" if self.kind is StringKind.PRESENCE else self.value


class IpBlock(NamedTuple):
    """A CIDR range; `ip` is its first address, canonical."""

    ip: str
    length: int

    def __str__(self) -> str:
        return f"{self.ip}/{self.length}"


class ServiceAccountMatch(NamedTuple):
    """A service account of whatever trust domain."""

    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service_account}"


class Match(NamedTuple):
    """Values of one field are alternatives; all fields must agree; an empty field is no condition."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    """Identities without `spiffe://`."""
    not_principals: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    source_ips: tuple[IpBlock, ...] = ()
    not_source_ips: tuple[IpBlock, ...] = ()
    destination_ips: tuple[IpBlock, ...] = ()
    not_destination_ips: tuple[IpBlock, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()


Clause = tuple[Match, ...]
Rule = tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Authorization:
    """One policy."""

    name: str
    namespace: str
    scope: PolicyScope = PolicyScope.NAMESPACE
    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    """Decide and say what it would do, but do nothing."""
    defect: str = ""
    """Why the policy cannot be understood in full, as a part of a sentence; such a policy denies."""

    @property
    def key(self) -> str:
        """`namespace/name`, by which workloads name it."""
        return f"{self.namespace}/{self.name}"
