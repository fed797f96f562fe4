"""The mesh as one immutable snapshot: every workload, found by IP or by pod name in one lookup.

A source builds a whole new snapshot for every change; who holds an old one keeps a consistent view.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from zproxy.model.workload import Workload

UniqueField = Literal["uid", "name", "workload_ips"]
_Key = TypeVar("_Key")


class DuplicateWorkloadError(Exception):
    """Two workloads claim one uid, one namespace/name, or one IP on one network.

    Positions are those in the sequence that was given to `Mesh.of`, so that a source can name its lines.
    """

    def __init__(self, *, index: int, earlier: int, field: UniqueField, value: str) -> None:
        super().__init__(f"workload {index} and workload {earlier} have the same {field}: {value}")
        self.index = index
        self.earlier = earlier
        self.field = field
        """The field of Workload that collides; for `workload_ips`, `value` is one of the addresses."""
        self.value = value


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """All that is known at one moment. NEVER changes; ALWAYS free of duplicates. Made by `of`."""

    workloads: tuple[Workload, ...]
    _by_address: Mapping[tuple[str, str], Workload]
    _by_pod: Mapping[str, Workload]

    @classmethod
    def of(cls, workloads: Iterable[Workload]) -> "Mesh":
        """Return the snapshot that holds `workloads`, in their order; raise DuplicateWorkloadError."""
        known = tuple(workloads)
        uids: dict[str, int] = {}
        pods: dict[str, int] = {}
        addresses: dict[tuple[str, str], int] = {}
        for index, workload in enumerate(known):
            _claim(uids, workload.uid, index, "uid", workload.uid)
            _claim(pods, workload.pod, index, "name", workload.pod)
            for ip in workload.workload_ips:
                _claim(addresses, (workload.network, ip), index, "workload_ips", ip)
        return cls(
            known,
            {address: known[index] for address, index in addresses.items()},
            {pod: known[index] for pod, index in pods.items()},
        )

    def by_ip(self, ip: str, network: str = "") -> Workload | None:
        """Return the workload that has `ip` (canonical text) on `network`."""
        return self._by_address.get((network, ip))

    def by_pod(self, pod: str) -> Workload | None:
        """Return the workload of `namespace/name`."""
        return self._by_pod.get(pod)

    def __repr__(self) -> str:
        return f"Mesh({len(self.workloads)} workloads)"


def _claim(taken: dict[_Key, int], key: _Key, index: int, field: UniqueField, value: str) -> None:
    earlier = taken.setdefault(key, index)
    if earlier != index:
        raise DuplicateWorkloadError(index=index, earlier=earlier, field=field, value=value)
