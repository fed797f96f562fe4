"""The record of enrolled pods on disk: what a restarted daemon enrols again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions


class Origin(NamedTuple):
    """Which pod of a container runtime it is; empty for a namespace that somebody named."""

    uid: str = ""
    """The pod's own; a pod that is made anew under the same name has another."""
    sandbox: str = ""
    """Id of its sandbox; a pod whose sandbox is made anew has another."""


NO_RUNTIME: Final = Origin()


class Record(NamedTuple):
    """What has to be known of a pod when the daemon that enrolled it is gone."""

    pod: str
    """`namespace/name`."""
    netns: str
    """Path of its namespace; the file may be another namespace's by now, `cookie` tells."""
    cookie: int
    service_account: str | None
    """As enrolment asked for it; None leaves it to the mesh, which may have changed."""
    former_sysctls: dict[str, str]
    """Values before the first enrolment."""
    options: PodOptions = DEFAULT_OPTIONS
    cgroup: str = ""
    """As enrolment asked for it; empty leaves it to a look at the pod's processes."""
    handed: str = ""
    """By which uid istio-cni handed it over; empty for one that somebody enrolled."""
    trust_domain: str = ""
    """That of its identity, where it was handed over: the mesh may not have its record yet."""
    origin: Origin = NO_RUNTIME
    attachment: str = ""
    """What its runtime calls it, see births.py; empty when it was not enrolled at its birth."""
    is_external: bool = False
    """Whether others steer it: rules and routes in its namespace are theirs."""


class Records:
    """One small file per pod under a directory of the daemon; written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, record: Record) -> None:
        """Write a pod's record; raise OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(record.pod)
        draft = path.with_suffix(".new")
        draft.write_text(
            json.dumps(record._asdict() | {"options": record.options.as_json()}, indent=2) + "\n"
        )
        os.replace(draft, path)

    def get(self, pod: str) -> Record | None:
        """Return the record of `namespace/name`, None when there is none that can be read."""
        return _read(self._path(pod))

    def remove(self, pod: str) -> None:
        """Forget `namespace/name`; idempotent."""
        self._path(pod).unlink(missing_ok=True)

    def load(self) -> Iterator[Record]:
        """Yield every readable record; one that is not is removed, since it can name no pod."""
        for path in sorted(self._directory.glob("*.json")):
            record = _read(path)
            if record is None:
                path.unlink(missing_ok=True)
            else:
                yield record

    def peek(self) -> Iterator[Record]:
        """Yield every readable record, and change nothing."""
        found = (_read(path) for path in sorted(self._directory.glob("*.json")))
        return (record for record in found if record is not None)

    def files(self) -> list[Path]:
        """Return what a Records ever wrote there, drafts of a write that broke off included."""
        return sorted(path for path in self._directory.glob("*") if path.suffix in (".json", ".new"))

    def _path(self, pod: str) -> Path:
        return self._directory / (pod.replace("/", "_") + ".json")


def _read(path: Path) -> Record | None:
    try:
        fields = json.loads(path.read_text())
        read = {
            "options": PodOptions.of_json(fields.get("options", {})),
            "origin": Origin(*fields.get("origin", ())),
        }
        return Record(**fields | read)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
