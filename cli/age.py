"""Durations as kubectl prints ages."""

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY
_STEPS: Final = (
    (2 * _MINUTE, "s", 1, 0),
    (10 * _MINUTE, "m", _MINUTE, 1),
    (3 * _HOUR, "m", _MINUTE, 0),
    (8 * _HOUR, "h", _HOUR, _MINUTE),
    (2 * _DAY, "h", _HOUR, 0),
    (8 * _DAY, "d", _DAY, _HOUR),
    (2 * _YEAR, "d", _DAY, 0),
    (8 * _YEAR, "y", _YEAR, _DAY),
)
"""Up to how many seconds, in which unit of how many seconds, and which smaller unit follows (0: none)."""
_NAMES: Final = {1: "s", _MINUTE: "m", _HOUR: "h", _DAY: "d"}


def age(seconds: float) -> str:
    """Return a duration in one or two units, the finer the shorter it is: 5s, 3m20s, 4h5m, 2d3h."""
    whole = max(0, int(seconds))
    for limit, name, unit, finer in _STEPS:
        if whole < limit:
            count, rest = divmod(whole, unit)
            small = rest // finer if finer else 0
            return f"{count}{name}{small}{_NAMES[finer]}" if small else f"{count}{name}"
    return f"{whole // _YEAR}y"
