"""A counter that nobody can explain is no answer."""

from zproxy.steering.layout import REASONS
from zproxy.steering.meanings import MEANINGS


def test_every_reason_is_explained_in_the_order_of_its_number() -> None:
    assert tuple(MEANINGS) == REASONS
