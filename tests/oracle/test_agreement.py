"""Routes and verdicts agree with their restatement; `make soak` compares fifty times as many."""

from tests.oracle.agreement import disagreements

CASES = 2000


def test_the_code_and_the_oracle_agree() -> None:
    assert disagreements(seed=1, cases=CASES) == []
