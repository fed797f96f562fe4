"""A list of candidates, prepared for drawing: who takes part, and which number is whose."""

import pytest

from tests.support.mesh import workload
from zproxy.proxy.field import Field
from zproxy.state.choose import Candidate


def field(*weights: int) -> Field:
    made = Field(
        [
            Candidate(workload(f"demo/w{n}", f"10.0.0.{n}", capacity=weight), 80, 0)
            for n, weight in enumerate(weights)
        ],
        0,
    )
    made.weigh()
    return made


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ((1, 1, 1, 1), ("w0", "w1", "w2", "w3")),
        ((1, 3), ("w0", "w1", "w1", "w1")),
        ((0, 2, 2), ("w1", "w1", "w2", "w2")),
        ((0, 0), ("w0", "w0", "w1", "w1")),
    ],
    ids=["equal", "by weight", "weight 0 takes no part", "unless all have it"],
)
def test_who_is_drawn_by_which_number(weights: tuple[int, ...], names: tuple[str, ...]) -> None:
    made = field(*weights)
    numbers = iter((0.0, 0.25, 0.5, 0.75))
    assert tuple(made.draw(lambda: next(numbers)).workload.name for _ in names) == names
