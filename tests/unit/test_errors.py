"""Errors that carry more than a sentence."""

import pytest

from zproxy.errors import PeerRefused


@pytest.mark.parametrize(("status", "reason"), [(401, "PEER_DENY"), (400, "CONNECT"), (503, "CONNECT")])
def test_a_refusal_by_policy_has_a_reason_of_its_own(status: int, reason: str) -> None:
    error = PeerRefused(status)
    assert (str(error), error.reason, error.status) == (f"http status: {status}", reason, status)
