"""The mesh as one immutable snapshot: workloads, services and policies, each found in one lookup.

A change makes a new snapshot, which shares with the former one what did not change; who holds an old one
keeps a consistent view. Making one costs copies of the indexes that the change touches, never a look at
every record.
"""

import ipaddress
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from zproxy.model.policy import Authorization, PolicyScope
from zproxy.model.service import NetworkAddress, NetworkCidr, Service
from zproxy.model.workload import NetworkMode, Protocol, Workload
from zproxy.state.index import Index
from zproxy.state.memo import Memo

Key = TypeVar("Key", bound=Hashable)
Record = TypeVar("Record")
REMEMBERED: Final = 4096
"""Routes and lists of candidates in one generation of what a snapshot remembers."""
_Range = tuple[str, bool]
"""A network and whether IPv6 is meant."""


class Records(NamedTuple):
    """All that a mesh is made of, each record with a key of its own."""

    workloads: Sequence[Workload] = ()
    services: Sequence[Service] = ()
    policies: Sequence[Authorization] = ()


class Change(NamedTuple):
    """What is new or other than before, and what is gone. A record replaces the one with its key."""

    workloads: tuple[Workload, ...] = ()
    services: tuple[Service, ...] = ()
    policies: tuple[Authorization, ...] = ()
    gone_workloads: tuple[str, ...] = ()
    """By uid; one that nobody knows is no error, here and below."""
    gone_services: tuple[str, ...] = ()
    """By `namespace/hostname`."""
    gone_policies: tuple[str, ...] = ()
    """By `namespace/name`."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not any(self)

    @classmethod
    def to(cls, records: Records, former: "Mesh") -> "Change":
        """Return what makes `former` hold these records and no others; equal records are no change."""
        workloads, services, policies = (
            {each.uid: each for each in records.workloads},
            {each.key: each for each in records.services},
            {each.key: each for each in records.policies},
        )
        return cls(
            _new(former._workloads, workloads),
            _new(former._services, services),
            _new(former._policies, policies),
            _gone(former._workloads, workloads),
            _gone(former._services, services),
            _gone(former._policies, policies),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """All that is known at one moment. NEVER changes, so that its identity is a version. Made by `of`."""

    _workloads: Mapping[str, Workload]
    _services: Mapping[str, Service]
    _policies: Mapping[str, Authorization]
    _by_address: Index[tuple[str, str], Workload]
    _by_pod: Index[str, Workload]
    _by_hostname: Index[str, Workload]
    _by_service: Index[str, Workload]
    _by_name: Index[str, Service]
    _by_vip: Index[NetworkAddress, Service]
    _by_cidr: Index[NetworkCidr, Service]
    _lengths: Mapping[_Range, tuple[int, ...]]
    """Prefix lengths that occur, longest first."""
    _by_scope: Index[str, Authorization]
    """Policies of a namespace, and under "" the global ones."""
    memo: Memo = field(default_factory=lambda: Memo(REMEMBERED))
    """What pure functions found out about this snapshot, by arguments that clients choose."""
    service_memo: Memo = field(default_factory=lambda: Memo(REMEMBERED))
    """Likewise about its services, by arguments that no client has a hand in: it may be dear."""
    once: dict[str, Any] = field(default_factory=dict)
    """Likewise about the snapshot as a whole, by name: a handful, which no client makes more."""
    policy_memo: dict[Hashable, Any] = field(default_factory=dict)
    """Likewise about its policies alone. All snapshots with the same policies share it, so that it also tells
    when they change."""

    @classmethod
    def of(
        cls,
        workloads: Iterable[Workload] = (),
        services: Iterable[Service] = (),
        policies: Iterable[Authorization] = (),
    ) -> "Mesh":
        """Return the snapshot that holds these; of two with one key the later one."""
        return EMPTY.changed(Change(tuple(workloads), tuple(services), tuple(policies)))

    def changed(self, change: Change) -> "Mesh":
        """Return the snapshot after `change`, which happens as a whole."""
        workloads = _Edit(self._workloads, {w.uid: w for w in change.workloads}, change.gone_workloads)
        services = _Edit(self._services, {s.key: s for s in change.services}, change.gone_services)
        policies = _Edit(self._policies, {p.key: p for p in change.policies}, change.gone_policies)
        by_cidr = services.index(self._by_cidr)
        return Mesh(
            workloads.records,
            services.records,
            policies.records,
            workloads.index(self._by_address),
            workloads.index(self._by_pod),
            workloads.index(self._by_hostname),
            workloads.index(self._by_service),
            services.index(self._by_name),
            services.index(self._by_vip),
            by_cidr,
            self._lengths if by_cidr is self._by_cidr else _lengths(by_cidr.keys()),
            policies.index(self._by_scope),
            policy_memo=self.policy_memo if policies.records is self._policies else {},
        )

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """All of them, in the order in which they became known."""
        return tuple(self._workloads.values())

    @property
    def services(self) -> tuple[Service, ...]:
        """All of them, likewise."""
        return tuple(self._services.values())

    @property
    def policies(self) -> tuple[Authorization, ...]:
        """All of them, likewise."""
        return tuple(self._policies.values())

    def by_uid(self, uid: str) -> Workload | None:
        """Return the workload of `uid`."""
        return self._workloads.get(uid)

    def by_ip(self, ip: str, network: str = "") -> Workload | None:
        """Return the workload that has `ip` (canonical text) on `network`.

        One on its node's network is never meant by that address. Of several, a pod is preferred to other
        records, and then one with HBONE.
        """
        return self._by_address.first((network, ip))

    def by_pod(self, pod: str, node: str | None = None) -> Workload | None:
        """Return the workload of `namespace/name`, that on `node` if one is named and there are several."""
        found = self._by_pod[pod]
        return next((each for each in found if each.node == node), found[0] if found else None)

    def by_hostname(self, hostname: str) -> tuple[Workload, ...]:
        """Return the workloads whose `hostname` this is."""
        return self._by_hostname[hostname]

    def endpoints(self, service: str) -> tuple[Workload, ...]:
        """Return the workloads of a service (`namespace/hostname`), whatever their health."""
        return self._by_service[service]

    def service(self, key: str) -> Service | None:
        """Return the service of `namespace/hostname`."""
        return self._services.get(key)

    def services_named(self, hostname: str) -> tuple[Service, ...]:
        """Return the services of a hostname, of all namespaces."""
        return self._by_name[hostname]

    def services_at(self, ip: str, network: str = "") -> tuple[Service, ...]:
        """Return the services that have exactly this VIP."""
        return self._by_vip[NetworkAddress(network, ip)]

    def services_around(self, ip: str, network: str = "") -> Iterator[tuple[NetworkCidr, Service]]:
        """Yield the services whose ranges hold `ip`, those of the longest prefix first."""
        lengths = self._lengths.get((network, ":" in ip))
        if lengths:
            for length in lengths:
                cidr = NetworkCidr(network, _first_of(ip, length), length)
                for service in self._by_cidr[cidr]:
                    yield cidr, service

    def policy(self, key: str) -> Authorization | None:
        """Return the policy of `namespace/name`."""
        return self._policies.get(key)

    def policies_of(self, namespace: str) -> tuple[Authorization, ...]:
        """Return the policies of namespace scope there; with "" the global ones."""
        return self._by_scope[namespace]

    def __repr__(self) -> str:
        return (
            f"Mesh({len(self._workloads)} workloads, {len(self._services)} services, "
            f"{len(self._policies)} policies)"
        )


def _new(former: Mapping[str, Record], now: Mapping[str, Record]) -> tuple[Record, ...]:
    return tuple(each for key, each in now.items() if former.get(key) != each)


def _gone(former: Mapping[str, Record], now: Mapping[str, Record]) -> tuple[str, ...]:
    return tuple(key for key in former if key not in now)


class _Edit(Generic[Record]):
    """What a change does to the records of one kind."""

    def __init__(self, former: Mapping[str, Record], new: Mapping[str, Record], gone: Iterable[str]) -> None:
        leaving = {key for key in gone if key in former and key not in new}
        self._removed = [former[key] for key in (*leaving, *(key for key in new if key in former))]
        self._added = new.values()
        self.records = former
        if new or leaving:
            self.records = {key: each for key, each in former.items() if key not in leaving} | dict(new)

    def index(self, former: Index[Key, Record]) -> Index[Key, Record]:
        """Return the index after the change."""
        return former.changed(self._removed, self._added)


def _addresses(workload: Workload) -> Iterator[tuple[str, str]]:
    if workload.network_mode is NetworkMode.STANDARD:
        for ip in workload.workload_ips:
            yield workload.network, ip


def _preference(workload: Workload) -> tuple[bool, bool, str]:
    return "//Pod/" not in workload.uid, workload.protocol is not Protocol.HBONE, workload.uid


def _scopes(policy: Authorization) -> tuple[str, ...]:
    if policy.scope is PolicyScope.WORKLOAD_SELECTOR:
        return ()
    return ("",) if policy.scope is PolicyScope.GLOBAL else (policy.namespace,)


def _lengths(cidrs: Iterable[NetworkCidr]) -> dict[_Range, tuple[int, ...]]:
    found: dict[_Range, set[int]] = {}
    for cidr in cidrs:
        found.setdefault((cidr.network, ":" in cidr.ip), set()).add(cidr.length)
    return {where: tuple(sorted(lengths, reverse=True)) for where, lengths in found.items()}


@lru_cache(maxsize=4096)
def _first_of(ip: str, length: int) -> str:
    return str(ipaddress.ip_network((ip, length), strict=False).network_address)


def _by_key(record: Service | Authorization) -> str:
    return record.key


EMPTY: Final = Mesh(
    {},
    {},
    {},
    Index(_addresses, _preference),
    Index(lambda workload: (workload.pod,), _preference),
    Index(lambda workload: (workload.hostname,) if workload.hostname else (), _preference),
    Index(lambda workload: workload.services, lambda workload: workload.uid),
    Index(lambda service: (service.hostname,), _by_key),
    Index(lambda service: service.vips, _by_key),
    Index(lambda service: service.cidr_vips, _by_key),
    {},
    Index(_scopes, _by_key),
)
"""A mesh in which nothing is known."""
