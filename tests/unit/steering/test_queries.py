"""Asking the kernel what is attached where."""

import errno
import os
from collections.abc import Iterator

import pytest

from tests.support.bpf_objects import Load, attached_without_link, linked, loaded_program
from tests.support.netns import PREFIX, Namespace
from zproxy.steering.cgroups import root_cgroup
from zproxy.steering.info import AttachType, ProgType, link_info, prog_info
from zproxy.steering.queries import QUERY_EFFECTIVE, Attachment, attached, count

pytestmark = pytest.mark.root

CGROUP_SKB, EGRESS, MULTI = 8, 1, 2


@pytest.fixture
def group() -> Iterator[int]:
    path = root_cgroup() / f"{PREFIX}queries"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    path.rmdir()


def test_programs_are_listed_in_running_order_with_their_flags(group: int) -> None:
    load = Load(CGROUP_SKB, EGRESS)
    with loaded_program(load) as first, loaded_program(load) as second:
        with attached_without_link(first, group, EGRESS, MULTI), linked(second, group, EGRESS):
            assert count(group, EGRESS) == 2
            assert attached(group, EGRESS, capacity=8) == [
                Attachment(prog_info(first).id, MULTI),
                Attachment(prog_info(second).id, MULTI),
            ]
            effective = attached(group, EGRESS, QUERY_EFFECTIVE, capacity=64)
            assert [each.flags for each in effective] == [0] * len(effective)
        assert count(group, EGRESS) == 0


def test_more_than_there_is_room_for_is_an_error(group: int) -> None:
    load = Load(CGROUP_SKB, EGRESS)
    with (
        loaded_program(load) as first,
        loaded_program(load) as second,
        linked(first, group, EGRESS),
        linked(second, group, EGRESS),
        pytest.raises(OSError, match="No space left") as failure,
    ):
        attached(group, EGRESS, capacity=1)
    assert failure.value.errno == errno.ENOSPC


def test_a_link_at_an_interface_is_named(pod: Namespace) -> None:
    def ask() -> tuple[list[Attachment], Attachment]:
        with (
            loaded_program(Load(ProgType.SCHED_CLS, AttachType.TCX_EGRESS)) as prog,
            linked(prog, 1, AttachType.TCX_EGRESS) as link,
        ):
            found = attached(1, AttachType.TCX_EGRESS, capacity=4, with_links=True)
            return found, Attachment(prog_info(prog).id, 0, link_info(link).id)

    found, expected = pod.run(ask)
    assert found == [expected]


def test_what_is_no_cgroup_is_refused() -> None:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            count(fd, EGRESS)
    finally:
        os.close(fd)
