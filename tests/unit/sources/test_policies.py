"""One policy of the local configuration: every key, and a table of bad values."""

from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.sources.document import Place, parse
from zproxy.sources.policies import read_policy

FILE = Path("mesh.yaml")
MINIMAL = "name: n\nnamespace: ns\nscope: Namespace\naction: Allow\n"


def read(text: str) -> Authorization:
    root = parse(text, FILE)
    assert root is not None
    return read_policy(root, Place(FILE, root.line, "policies[0]"))


def test_four_keys_are_enough() -> None:
    assert read(MINIMAL) == Authorization("n", "ns")


def test_names_may_be_those_that_istiod_gives_to_what_it_converts() -> None:
    assert read(MINIMAL.replace("name: n\n", "name: istio_converted_static_strict\n")).name == (
        "istio_converted_static_strict"
    )


def test_every_key_is_read() -> None:
    text = """\
name: deny
namespace: demo
scope: WorkloadSelector
action: Deny
dryRun: true
rules:
- - - namespaces: [{Exact: shop}, {Prefix: test-}]
      notNamespaces: [{Suffix: -dev}]
      principals: [{Presence: []}]
      notPrincipals: [{Exact: cluster.local/ns/demo/sa/client}]
      serviceAccounts: [{namespace: demo, serviceAccount: a.b}]
      notServiceAccounts: [demo/other]
      sourceIps: [10.0.0.0/8, 192.0.2.1]
      notSourceIps: ["fd00::/8"]
      destinationIps: [10.0.0.1/32]
      notDestinationIps: [10.0.0.2/32]
      destinationPorts: [80, 443]
      notDestinationPorts: [9999]
    - {}
  - []
- []
"""
    match = Match(
        (StringMatch(StringKind.EXACT, "shop"), StringMatch(StringKind.PREFIX, "test-")),
        (StringMatch(StringKind.SUFFIX, "-dev"),),
        (StringMatch(StringKind.PRESENCE),),
        (StringMatch(StringKind.EXACT, "cluster.local/ns/demo/sa/client"),),
        (ServiceAccountMatch("demo", "a.b"),),
        (ServiceAccountMatch("demo", "other"),),
        (IpBlock("10.0.0.0", 8), IpBlock("192.0.2.1", 32)),
        (IpBlock("fd00::", 8),),
        (IpBlock("10.0.0.1", 32),),
        (IpBlock("10.0.0.2", 32),),
        (80, 443),
        (9999,),
    )
    assert read(text) == Authorization(
        "deny",
        "demo",
        PolicyScope.WORKLOAD_SELECTOR,
        Action.DENY,
        (((match, Match()), ()), ()),
        dry_run=True,
    )


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("namespaces: [demo]", "namespaces[0]: 'demo' is not a mapping"),
        ("namespaces: [{exact: demo}]", "namespaces[0].exact: unknown key; did you mean 'Exact'?"),
        ("namespaces: [{Exact: a, Prefix: b}]", "namespaces[0]: needs exactly one of Exact, Prefix, Suffix,"),
        ("namespaces: [{}]", "namespaces[0]: needs exactly one of"),
        (
            "namespaces: [{Presence: demo}]",
            "namespaces[0].Presence: is any text at all; write {Presence: []}",
        ),
        ("namespaces: [{Exact: ''}]", "namespaces[0].Exact: '' is not a part of an identity"),
        (
            "principals: [{Exact: 'spiffe://td/ns/a/sa/b'}]",
            "principals[0]: principals are written without spiffe://, and this would match nobody: td",
        ),
        ("serviceAccounts: [client]", "serviceAccounts[0]: '' is not a Kubernetes name"),
        ("serviceAccounts: [{namespace: demo}]", "serviceAccounts[0].serviceAccount: missing"),
        ("sourceIps: [10.0.0.1/8]", "sourceIps[0]: '10.0.0.1/8' is not an address range such as 10.0.0.0/8"),
        ("destinationPorts: [0]", "destinationPorts[0]: '0' is not a whole number from 1 to 65535"),
        ("ports: [80]", "ports: unknown key"),
    ],
)
def test_a_bad_match_names_file_line_and_key(rule: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL + f"rules: [[[{{{rule}}}]]]")
    assert str(caught.value).startswith("mesh.yaml:5: policies[0].rules[0][0][0]")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name: n\nnamespace: ns\naction: Deny\n",
            "scope: missing; every policy needs one of Global, Namespace",
        ),
        ("name: n\nnamespace: ns\nscope: Global\n", "action: missing; every policy needs one of Allow, Deny"),
        (MINIMAL.replace("Allow", "Audit"), "action: 'Audit' is not one of Allow, Deny"),
        (MINIMAL + "rules: [[{}]]", "rules[0][0]: a mapping is not a list"),
        (MINIMAL + "rules: {}", "rules: a mapping is not a list"),
        (MINIMAL + "dryRun: maybe", "dryRun: 'maybe' is not one of true, false"),
        (MINIMAL + "dryrun: true", "dryrun: unknown key; did you mean 'dryRun'?"),
    ],
)
def test_a_bad_policy_names_file_line_and_key(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert says in str(caught.value)
