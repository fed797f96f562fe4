"""The mesh from a local file in ztunnel's LOCAL_XDS shape, all or nothing.

A bad file changes nothing: `load` returns a complete snapshot or raises ConfigError with file, line and key.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from zproxy.errors import ConfigError
from zproxy.model.policy import Authorization
from zproxy.model.service import Service
from zproxy.model.workload import NetworkMode, Workload
from zproxy.sources.document import Mapping, Node, Place, Scalar, parse
from zproxy.sources.endpoints import with_endpoints
from zproxy.sources.fields import Fields
from zproxy.sources.pace import Pause, hurry
from zproxy.sources.policies import read_policy
from zproxy.sources.services import Endpoint, read_endpoints, read_service
from zproxy.sources.workloads import read_workload
from zproxy.state.store import Mesh, Records

Record = TypeVar("Record")

MAX_BYTES: Final = 64 << 20
"""Size of a file."""

_KEYS: Final = ("workloads", "services", "policies")


def load(path: Path) -> Mesh:
    """Return the mesh that the file at `path` describes; raise ConfigError."""
    return Mesh.of(*read(path))


def read(path: Path, pause: Pause = hurry) -> Records:
    """Return the records that the file at `path` describes; raise ConfigError."""
    root = parse(_text(path), path, pause)
    if root is None or (isinstance(root, Scalar) and not root.text):
        raise Place(path, 1).error("the file is empty; it needs a top-level list `workloads:`")
    fields = Fields(root, Place(path, root.line), _KEYS)
    if "workloads" not in fields:
        raise fields.place("workloads").error("missing; the file needs a top-level list `workloads:`")
    reading = _Reading(fields, pause)
    told: list[tuple[str, Endpoint]] = []

    def service_of(node: Node, here: Place) -> Service:
        service = read_service(node, here)
        told.extend((service.key, each) for each in read_endpoints(node, here, service.key))
        return service

    workloads = reading.records("workloads", read_workload, _workload_claims)
    services = reading.records("services", service_of, _service_claims)
    policies = reading.records("policies", read_policy, _policy_claims)
    return Records(with_endpoints(workloads, told) if told else workloads, services, policies)


_Claim = tuple[str, str, str]
"""Key, value and network of something that no two records may have."""


class _Reading:
    """Reads lists of records, and refuses two that claim the same: one of them would not be found."""

    def __init__(self, fields: Fields, pause: Pause) -> None:
        self._fields = fields
        self._pause = pause

    def records(
        self,
        key: str,
        read: Callable[[Node, Place], Record],
        claims: Callable[[Record], Iterator[_Claim]],
    ) -> list[Record]:
        """Return the records of the list under `key`; raise ConfigError."""
        taken: dict[_Claim, Place] = {}
        found = []
        for node, place in self._fields.consume(key):
            record = read(node, place)
            for claim in claims(record):
                here = _place_of(claim[0], node, place)
                earlier = taken.setdefault(claim, here)
                if earlier is not here:
                    raise _duplicate(claim, here, earlier)
            found.append(record)
            self._pause()
        return found


def _workload_claims(workload: Workload) -> Iterator[_Claim]:
    yield "uid", workload.uid, ""
    yield "name", workload.pod, ""
    if workload.network_mode is NetworkMode.STANDARD:
        for ip in workload.workload_ips:
            yield "workloadIps", ip, workload.network


def _service_claims(service: Service) -> Iterator[_Claim]:
    yield "hostname", service.key, ""


def _policy_claims(policy: Authorization) -> Iterator[_Claim]:
    yield "name", policy.key, ""


def _duplicate(claim: _Claim, here: Place, earlier: Place) -> ConfigError:
    _, value, network = claim
    on = f" on network {network!r}" if network else ""
    return here.error(f"{value!r} is already that of line {earlier.line}{on}; each needs its own")


def _place_of(key: str, node: Node, here: Place) -> Place:
    return here.under(key, node.keys[key] if isinstance(node, Mapping) else node.line)


def _text(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Place(path, line).error("not UTF-8 text; save the file as UTF-8") from error


def _bytes(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hang the daemon before it can be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            data = _read(fd) if is_file else b""
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigError(f"the mesh file {path} cannot be read: {error.strerror}; check the path") from error
    if not is_file:
        raise ConfigError(f"{path} is not a regular file; name the mesh's YAML file itself")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB; is this the file of a mesh?")
    return data


def _read(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read(MAX_BYTES + 1)
