"""Netlink dumps: the kernel's answers, cut into attributes."""

import errno
import struct
import subprocess

import pytest

from tests.support.netns import Namespace
from zproxy.steering import netlink

GETLINK = 18


@pytest.mark.root
def test_a_dump_lists_what_the_namespace_has(pod: Namespace) -> None:
    answers = pod.run(lambda: netlink.dump(netlink.ROUTE, GETLINK, bytes(16)))
    names = {dict(netlink.attributes(answer, 16))[3] for answer in answers}
    assert names == {b"lo\0", b"eth0\0"}


@pytest.mark.root
def test_an_answer_may_come_in_several_datagrams(pod: Namespace) -> None:
    """The kernel fills 32 KiB at most, and a hundred links are more."""
    lines = (f"link add v{number} type veth peer name w{number}" for number in range(50))
    subprocess.run(["ip", "-n", pod.name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
    assert len(pod.run(lambda: netlink.dump(netlink.ROUTE, GETLINK, bytes(16)))) == 102


def test_the_kernels_refusal_is_an_oserror() -> None:
    with pytest.raises(OSError, match="netlink") as refused:
        netlink.dump(netlink.ROUTE, 999, bytes(16))
    assert refused.value.errno == errno.EOPNOTSUPP


def test_attributes_are_padded_and_their_flags_dropped() -> None:
    data = b"head" + struct.pack("=HH3sx", 7, 1, b"abc") + struct.pack("=HHI", 8, 0x8002, 5)
    assert list(netlink.attributes(data, 4)) == [(1, b"abc"), (2, struct.pack("=I", 5))]


def test_a_broken_attribute_ends_the_list() -> None:
    assert list(netlink.attributes(struct.pack("=HHI", 2, 1, 0))) == []
