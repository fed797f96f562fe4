"""What the kernel is asked before the programs are compiled."""

import os

import pytest

from zproxy.steering.features import GET_NETNS_COOKIE, has_tc_cookie, may_call
from zproxy.steering.info import ProgType

GET_NO_SUCH_THING = 100_000


@pytest.mark.root
def test_tc_programs_have_the_cookie_since_6_13() -> None:
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    assert has_tc_cookie() is (release >= (6, 13))


@pytest.mark.root
def test_a_helper_of_another_type_of_program_is_not_there() -> None:
    assert may_call(ProgType.CGROUP_SOCK, GET_NETNS_COOKIE)
    assert not may_call(ProgType.CGROUP_SOCK, GET_NO_SUCH_THING)


def test_who_may_not_load_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: int, attr: bytes) -> int:
        raise PermissionError

    monkeypatch.setattr("zproxy.steering.features.bpf_fd", refuse)
    assert not has_tc_cookie()
