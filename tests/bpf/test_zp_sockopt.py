"""getsockopt(SO_ORIGINAL_DST) without conntrack: the answers, and everybody else's getsockopt()."""

import ctypes
import errno
import socket

import pytest

from tests.support.netns import Namespace
from tests.support.straw import SO_ORIGINAL_DST, Arrival, Straw, dial

pytestmark = pytest.mark.root


def test_an_ipv4_destination_is_a_sockaddr_in(straw: Straw, pod: Namespace) -> None:
    with dial(pod, "203.0.113.9", 443), Arrival.take(straw.outbound).sock as accepted:
        raw = accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 64)
        assert raw == b"\x02\x00" + (443).to_bytes(2, "big") + bytes([203, 0, 113, 9]) + bytes(8)


def test_an_ipv6_destination_is_a_sockaddr_in6(straw: Straw, pod: Namespace) -> None:
    with dial(pod, "2001:db8::9", 443), Arrival.take(straw.outbound).sock as accepted:
        raw = accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 64)
        address = socket.inet_pton(socket.AF_INET6, "2001:db8::9")
        assert raw == b"\x0a\x00" + (443).to_bytes(2, "big") + bytes(4) + address + bytes(4)


@pytest.mark.parametrize(
    ("ip", "level"), [("203.0.113.9", socket.IPPROTO_IPV6), ("2001:db8::9", socket.SOL_IP)]
)
def test_the_other_family_has_no_answer(straw: Straw, pod: Namespace, ip: str, level: int) -> None:
    with dial(pod, ip, 443), Arrival.take(straw.outbound).sock as accepted, pytest.raises(OSError):  # noqa: PT011 - which errno depends on the netfilter modules
        accepted.getsockopt(level, SO_ORIGINAL_DST, 64)


def test_a_short_buffer_is_not_overrun(straw: Straw, pod: Namespace) -> None:
    with dial(pod, "203.0.113.9", 443), Arrival.take(straw.outbound).sock as accepted, pytest.raises(OSError):  # noqa: PT011 - as above
        accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 8)


def test_a_value_beyond_a_page_does_not_fail(straw: Straw) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    size, value = ctypes.c_uint32(8192), ctypes.create_string_buffer(8192)
    with socket.socket() as sock:
        arguments = (sock.fileno(), socket.IPPROTO_TCP, socket.TCP_INFO, value, ctypes.byref(size))
        assert libc.getsockopt(*arguments) == 0, errno.errorcode[ctypes.get_errno()]
    assert size.value > 100
