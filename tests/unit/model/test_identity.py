"""SPIFFE identities: exactly one shape, and only characters that need no quoting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.model.identity import SpiffeId, trust_domain_of

trust_domains = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)
segments = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True).filter(lambda text: text not in (".", ".."))


@given(trust_domains, segments, segments)
def test_an_identity_parses_back(trust_domain: str, namespace: str, account: str) -> None:
    identity = SpiffeId(trust_domain, namespace, account)
    assert SpiffeId.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "td/ns/a/sa/b",
        "http://td/ns/a/sa/b",
        "SPIFFE://td/ns/a/sa/b",
        "spiffe://td/ns/a",
        "spiffe://td/ns/a/sa",
        "spiffe://td/ns/a/sa/",
        "spiffe://td/ns//sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a/sa/b/",
        "spiffe://td/sa/a/ns/b",
        "spiffe://TD/ns/a/sa/b",
        "spiffe://td/ns/a b/sa/c",
        'spiffe://td/ns/a"/sa/c',
        "spiffe://td/ns/a\n/sa/c",
        "spiffe://td/ns/a/sa/b\n",
        "spiffe://td/ns/%61/sa/b",
        "spiffe://td:80/ns/a/sa/b",
        "spiffe://user@td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b?x",
        "spiffe://td/ns/./sa/b",
        "spiffe://td/ns/a/sa/..",
        "spiffe://td/ns/ä/sa/b",
        "spiffe://td/ns/a/sa/" + "b" * 2048,
    ],
)
def test_any_other_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not spiffe://"):
        SpiffeId.parse(text)


def test_names_that_begin_with_dots_are_names() -> None:
    assert SpiffeId.parse("spiffe://td/ns/..a/sa/.b") == SpiffeId("td", "..a", ".b")


@pytest.mark.parametrize("text", ["cluster.local", "a", "corp_x-1.example"])
def test_a_trust_domain_is_what_an_identity_can_have(text: str) -> None:
    assert trust_domain_of(text) == text


@pytest.mark.parametrize("text", ["", "A", "a/b", "a b", "spiffe://a"])
def test_what_can_be_no_trust_domain_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is not a trust domain"):
        trust_domain_of(text)
