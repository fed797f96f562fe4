"""How many CPUs this machine could have: a per-CPU map holds a value for each of them."""

from functools import cache
from pathlib import Path
from typing import Final

POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")


@cache
def possible_cpus(path: Path = POSSIBLE_CPUS) -> int:
    """Return the number of CPUs in a list of ranges such as `0-3,8`; it never changes while a kernel runs."""
    bounds = [part.partition("-") for part in path.read_text().strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)
