"""What the daemon needs of root, from a mask of bits alone."""

import pytest

from zproxy.model.capabilities import NEEDED, Capability, complaint, missing

ALL = sum(1 << each.bit for each in NEEDED)


def test_nothing_is_missing_where_all_are_there() -> None:
    assert missing(ALL) == ()
    assert missing(ALL | 1 << 40) == ()


@pytest.mark.parametrize("lacking", NEEDED, ids=lambda each: each.name)
def test_each_is_named_with_its_purpose(lacking: Capability) -> None:
    assert missing(ALL & ~(1 << lacking.bit)) == (lacking,)
    sentence = complaint((lacking,))
    assert sentence.startswith(f"{lacking.name} is missing: it is needed to {lacking.purpose}; ")
    assert (
        "run zproxy as root with these capabilities: CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN" in sentence
    )


def test_all_that_are_missing_are_said_at_once() -> None:
    sentence = complaint(missing(0))
    assert all(f"{each.name} is missing" in sentence for each in NEEDED)
