"""Verdicts of the reconciler and of `zproxy status`."""

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """The verdict on one check."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing to do."""
    MISSING = "missing"
    DRIFTED = "drifted"
    """There, and otherwise than it should be."""

    @property
    def is_bad(self) -> bool:
        """Whether it should be otherwise."""
        return self in (Status.MISSING, Status.DRIFTED)


class Repair(Enum):
    """What mends a finding; in this order."""

    LISTENERS = "listeners opened again"
    NETWORK = "sysctls, rules and routes set again"
    STEERING = "steering brought up to date"
    HOOKS = "hooks and pins made again"


class Finding(NamedTuple):
    """One check and its verdict."""

    check: str
    status: Status
    detail: str
    remedy: str = ""
    repair: Repair | None = None
