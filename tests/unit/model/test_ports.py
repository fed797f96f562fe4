"""The ports of a straw."""

from zproxy import config
from zproxy.model import ports


def test_every_listener_that_carries_streams_is_an_illegal_target() -> None:
    assert {ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE} == ports.ILLEGAL


def test_the_configuration_says_the_same() -> None:
    assert (config.OUTBOUND_PORT, config.INBOUND_PLAINTEXT_PORT) == (ports.OUTBOUND, ports.INBOUND_PLAINTEXT)
    assert (config.INBOUND_HBONE_PORT, config.DNS_PORT) == (ports.INBOUND_HBONE, ports.DNS)
    assert config.ILLEGAL_PORTS == ports.ILLEGAL
