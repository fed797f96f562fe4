"""How often host names of workloads were asked for, look-up or not: ztunnel's counter."""

from typing import Final

from zproxy.model.identity import SpiffeId
from zproxy.model.workload import Workload
from zproxy.observe.series import LABELS, SOURCE_AT, UNKNOWN, Labels, workload_labels

LIMIT: Final = 1024
"""Label sets; what comes after is counted under unknown."""
NAME_LABELS: Final = (*LABELS[SOURCE_AT : SOURCE_AT + 8], "hostname")


class NameCounts:
    """Counters since start, by who asked and for what."""

    def __init__(self) -> None:
        self.rows: dict[Labels, int] = {}

    def count(self, source: Workload, identity: SpiffeId, hostname: str) -> None:
        """Count one connection that is to go to `hostname`."""
        labels = tuple(value or UNKNOWN for value in (*workload_labels(source, identity), hostname))
        if labels not in self.rows and len(self.rows) >= LIMIT:
            labels = (UNKNOWN,) * len(NAME_LABELS)
        self.rows[labels] = self.rows.get(labels, 0) + 1
