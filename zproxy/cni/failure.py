"""Failures as CNI has them: a code, a message, and what lies behind it (CNI spec 1.1.0, section 5)."""

from enum import IntEnum


class Code(IntEnum):
    """Why the plugin failed; from 100 on they are the plugin's own."""

    VERSION = 1
    ENVIRONMENT = 4
    IO = 5
    DECODE = 6
    CONFIG = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 51
    """STATUS only: no pod can be born, and those that are there are cut off as long as no daemon lives."""
    REFUSED = 100
    """The daemon says no, in a sentence."""
    INTERNAL = 101


class CniError(Exception):
    """The command failed; the runtime is told so."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def as_json(self, version: str) -> dict[str, str | int]:
        """Return the error result of the protocol's `version`."""
        result: dict[str, str | int] = {"cniVersion": version, "code": int(self.code), "msg": self.message}
        return result | {"details": self.details} if self.details else result
