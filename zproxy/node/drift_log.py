"""What the reconciler found and did: a log line for each finding, and the counters that agree with it."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Final

from zproxy.node.findings import Finding
from zproxy.observe.metrics import OWN, Family

_log = logging.getLogger("zproxy.reconcile")

MAX_OPEN: Final = 16
"""Findings of one pod that are remembered as said already."""


class DriftLog:
    """Counts, and says each thing once: what cannot be mended is not said again every minute."""

    def __init__(self) -> None:
        self.looks = 0
        self.seconds = 0.0
        """Spent on looking at pods and mending them."""
        self.collected = 0
        self._found: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()
        self._open: dict[str, set[Finding]] = {}

    def report(self, whose: str, found: Iterable[Finding], left: Iterable[Finding], done: str) -> None:
        """Say what was found of a pod (or the node) and what became of it; `left` is what is still so."""
        remaining = {finding.check: finding for finding in left}
        known = self._open.get(whose, set())
        for finding in found:
            kind = _kind(finding)
            if finding.check not in remaining:
                self._found[kind] += 1
                self._repaired[kind] += 1
                _log.warning(
                    "drift of %s, repaired: %s %s: %s; %s",
                    whose, finding.check, finding.status.value, finding.detail, done,
                )  # fmt: skip
            elif remaining[finding.check] not in known:
                self._found[kind] += 1
                _log.warning(
                    "drift of %s, NOT repaired: %s %s: %s; %s",
                    whose, finding.check, finding.status.value, finding.detail, finding.remedy or done,
                )  # fmt: skip
        still = sorted(remaining.values(), key=lambda finding: finding.check)[:MAX_OPEN]
        self._open[whose] = set(still)
        if not still:
            del self._open[whose]

    def gone(self, whose: str, what: str) -> None:
        """Say that what a dead pod left was collected."""
        self.collected += 1
        self._open.pop(whose, None)
        _log.warning("collected what %s left: %s", whose, what)

    def failed(self, whose: str, error: Exception) -> None:
        """Say that a repair, or a look, did not succeed."""
        _log.warning("cannot reconcile %s: %s", whose, error)

    async def families(self) -> list[Family]:
        """Return the counters as metrics."""
        found, repaired = _rows(self._found), _rows(self._repaired)
        spent = int(self.seconds * 1e6)
        return [
            Family("zproxy_drift_found", f"{OWN}deviations found, by check", ("check",), found),
            Family("zproxy_drift_repaired", f"{OWN}deviations repaired, by check", ("check",), repaired),
            Family("zproxy_dead_pods_collected", f"{OWN}dead pods collected", (), [((), self.collected)]),
            Family("zproxy_reconcile_looks", f"{OWN}looks at a pod's state", (), [((), self.looks)]),
            Family("zproxy_reconcile_microseconds", f"{OWN}time taken by that", (), [((), spent)]),
        ]


def _kind(finding: Finding) -> str:
    """A label that pods cannot multiply: interfaces have any names."""
    return finding.check.partition("-")[0]


def _rows(counter: Counter[str]) -> list[tuple[tuple[str, ...], int]]:
    return [((check,), count) for check, count in sorted(counter.items())]
