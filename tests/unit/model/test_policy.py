"""Policies as values: keys, and how conditions are written."""

import pytest

from zproxy.model.policy import Authorization, IpBlock, ServiceAccountMatch, StringKind, StringMatch


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (StringKind.EXACT, "demo"),
        (StringKind.PREFIX, "demo*"),
        (StringKind.SUFFIX, "*demo"),
        (StringKind.PRESENCE, "*"),
    ],
)
def test_conditions_are_written_as_in_istio(kind: StringKind, text: str) -> None:
    assert str(StringMatch(kind, "demo")) == text


def test_blocks_accounts_and_keys() -> None:
    assert str(IpBlock("10.0.0.0", 8)) == "10.0.0.0/8"
    assert str(ServiceAccountMatch("demo", "client")) == "demo/client"
    assert Authorization("deny", "demo").key == "demo/deny"
