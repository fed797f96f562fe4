"""Names among the settings: what is one, and how it is written."""

import pytest

from zproxy.model.settings import domain_of, namespace_of


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("cluster.local", "cluster.local"),
        ("Cluster.LOCAL.", "cluster.local"),
        ("k8s", "k8s"),
        ("a-1.2", "a-1.2"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    ],
)
def test_a_domain_is_lower_case_without_the_dot_behind_it(text: str, domain: str) -> None:
    assert domain_of(text) == domain


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", ".local", "cluster..local", "cluster.local..", "-a.local", "a-.local"),
        *("a_b.local", "a b", "*.local", "a/b", "clüster.local", "a\n", "a" * 64, "\N{KELVIN SIGN}8s"),
        ".".join(["a" * 63] * 3 + ["b" * 62]),
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no domain; write one such as "):
        domain_of(text)


def test_a_namespace_is_lower_case_and_may_be_none() -> None:
    assert [namespace_of(text) for text in ("shop", "Shop-2", "", "a" * 63)] == [
        "shop",
        "shop-2",
        "",
        "a" * 63,
    ]


@pytest.mark.parametrize("text", ["a.b", "-a", "a-", "a_b", "a ", "a" * 64, "a\n", "\N{KELVIN SIGN}"])
def test_what_is_no_namespace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no namespace; write its name"):
        namespace_of(text)
