"""Netlink dumps from a namespace."""

import errno
import os
import struct

import pytest

from zproxy.lab.evidence import netlink
from zproxy.net.netns import Netns


def test_attributes_are_read_with_their_padding_and_flags() -> None:
    data = struct.pack("=HH4s", 7, 3, b"lo\0") + struct.pack("=HHI", 8, 18 | 0x8000, 5)
    assert netlink.attributes(data) == {3: b"lo\0", 18: struct.pack("=I", 5)}


def test_broken_attributes_end_the_walk() -> None:
    assert netlink.attributes(struct.pack("=HHI", 8, 1, 5) + b"\0\0\0\0") == {1: struct.pack("=I", 5)}


@pytest.mark.root
def test_the_kernels_refusal_is_an_error() -> None:
    with Netns.current() as here, pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        netlink.dump(here, netlink.SOCK_DIAG, 20, b"")


def test_a_dump_that_changed_is_noticed() -> None:
    done = struct.pack("=IHHIIi", 20, 3, 0, 1, 0, 0)
    entry = struct.pack("=IHHII4s", 20, 16, 0x10, 1, 0, b"data")
    assert [(kind, flags) for kind, flags, _ in netlink._messages(entry + done)] == [(16, 0x10), (3, 0)]
