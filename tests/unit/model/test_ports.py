"""The ports of a straw."""

from zproxy.model import ports


def test_every_listener_that_carries_streams_is_an_illegal_target() -> None:
    assert {ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE, ports.DNS} == ports.ILLEGAL
