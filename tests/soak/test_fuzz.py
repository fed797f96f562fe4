"""A million hostile peers in memory: nothing but RemoteProtocolError, no hang, no growth."""

import os
import secrets
from typing import Final

import pytest

from tests.soak.conftest import Figure
from tests.support import fuzz

pytestmark = pytest.mark.timeout(600)

LARGEST_GROWTH_KB: Final = 2048
"""Of a process over the second half of its cases, when every cache is full."""


@pytest.fixture
def seed() -> int:
    """Return the seed of this run: SEED of the environment, to see a run again."""
    return int(os.environ.get("SEED") or secrets.randbits(31))


@pytest.mark.parametrize(("target", "cases"), [("wire", 1_000_000), ("plane", 200_000)])
def test_hostile_frames_do_no_harm(target: str, cases: int, seed: int, figure: Figure) -> None:
    figure(f"fuzz {target}, seed", seed)
    reports = list(fuzz.spread(target, seed, cases))
    found = [said["found"] for process in reports for said in process if said["found"]]
    assert not found, "\n\n".join(found)
    last = [process[-1] for process in reports]
    done = sum(said["done"] for said in last)
    figure(f"fuzz {target}, cases", f"{done} ({done / max(said['seconds'] for said in last):.0f} per second)")
    halfway = [process[(len(process) - 1) // 2] for process in reports]
    growth = [end["resident_kb"] - half["resident_kb"] for half, end in zip(halfway, last, strict=True)]
    figure(f"fuzz {target}, growth of each process over the second half", f"{growth} kB")
    assert done >= cases
    assert max(growth) < LARGEST_GROWTH_KB
