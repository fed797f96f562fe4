"""Routes and verdicts agree with their restatement; `make soak` compares fifty times as many."""

import pytest

from tests.oracle.agreement import disagreements
from zproxy.state import balance

CASES = 2000


def test_the_ways_of_services_with_many_endpoints_agree_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "CROWD", 1)
    monkeypatch.setattr(balance, "SHARED", 1)
    assert disagreements(seed=2, cases=CASES) == []


def test_the_code_and_the_oracle_agree() -> None:
    assert disagreements(seed=1, cases=CASES) == []
