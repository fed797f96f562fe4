"""Routes and verdicts agree with their restatement on a hundred thousand cases, others at each run."""

import os
import secrets
from time import monotonic
from typing import Final

import pytest

from tests.oracle.agreement import disagreements
from tests.soak.conftest import Figure

pytestmark = pytest.mark.timeout(1200)

CASES: Final = 100_000


def test_the_code_and_the_oracle_agree(figure: Figure) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbits(31))
    figure("decisions, seed", seed)
    began = monotonic()
    found = disagreements(seed, CASES)
    figure(
        "decisions, cases", f"{CASES} routes and verdicts ({CASES / (monotonic() - began):.0f} per second)"
    )
    assert not found, "\n".join(found[:5])
