"""What may be chosen for a pod: the safe defaults, and the form in which they are kept."""

import pytest

from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions, UdpPolicy


def test_dns_is_captured_and_nothing_let_through_unless_it_was_asked_for() -> None:
    assert PodOptions(dns=True, udp=UdpPolicy.AUDIT, fail_open=False) == DEFAULT_OPTIONS


def test_options_survive_a_record() -> None:
    options = PodOptions(dns=True, udp=UdpPolicy.BLOCK, fail_open=True)
    assert options.as_json() == {"dns": True, "udp": "block", "fail_open": True}
    assert PodOptions.of_json(options.as_json()) == options


def test_what_a_record_does_not_say_is_default() -> None:
    assert PodOptions.of_json({}) == DEFAULT_OPTIONS


def test_a_policy_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="drop"):
        PodOptions.of_json({"udp": "drop"})
