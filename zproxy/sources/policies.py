"""One policy of the local configuration. Keys, nesting and spellings are ztunnel's.

What is not understood here is refused with the whole file: a policy is taken in full or not at all.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from zproxy.model.identity import SCHEME
from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.sources.document import Node, Place, Scalar, Sequence
from zproxy.sources.fields import Fields, Text, checked, items_of, number_of, text_of
from zproxy.sources.vocabulary import NAME, NAMESPACE, POLICY_NAME, PORTS, block_of

KEYS: Final = ("name", "namespace", "scope", "action", "rules", "dryRun")
_SCOPES: Final = {each.value: each for each in PolicyScope}
_ACTIONS: Final = {each.value: each for each in Action}
_KINDS: Final = {each.value: each for each in StringKind}
_PART: Final = Text("a part of an identity", re.compile(r"[A-Za-z0-9._/-]+"), 2048)
_ACCOUNT_KEYS: Final = ("namespace", "serviceAccount")


def read_policy(node: Node, here: Place) -> Authorization:
    """Return the policy that `node` describes; raise ConfigError."""
    fields = Fields(node, here, KEYS)
    return Authorization(
        name=fields.text("name", POLICY_NAME),
        namespace=fields.text("namespace", NAMESPACE),
        scope=fields.choice("scope", _SCOPES, None) or _missing(fields, "scope", _SCOPES),
        action=fields.choice("action", _ACTIONS, None) or _missing(fields, "action", _ACTIONS),
        rules=tuple(_rule(item, place) for item, place in fields.items("rules")),
        dry_run=fields.flag("dryRun"),
    )


def _missing(fields: Fields, key: str, choices: dict[str, Any]) -> Any:
    raise fields.place(key).error(f"missing; every policy needs one of {', '.join(choices)}")


def _rule(node: Node, here: Place) -> Rule:
    return tuple(
        tuple(_match(match, at) for match, at in items_of(clause, place))
        for clause, place in items_of(node, here)
    )


def _match(node: Node, here: Place) -> Match:
    fields = Fields(node, here, FIELDS)
    found: dict[str, Any] = {}
    for key, (name, read) in FIELDS.items():
        found[name] = tuple(read(item, place) for item, place in fields.items(key))
    return Match(**found)


def _namespace(node: Node, place: Place) -> StringMatch:
    return _string(node, place)


def _principal(node: Node, place: Place) -> StringMatch:
    match = _string(node, place)
    if match.value.startswith(SCHEME) or (match.kind is not StringKind.SUFFIX and ":" in match.value):
        wanted = match.value.removeprefix(SCHEME)
        raise place.error(f"principals are written without {SCHEME}, and this would match nobody: {wanted}")
    return match


def _string(node: Node, place: Place) -> StringMatch:
    """Return `{Exact: x}`, `{Prefix: x}`, `{Suffix: x}` or `{Presence: []}`."""
    inner = Fields(node, place, _KINDS)
    given = [key for key in _KINDS if key in inner]
    if len(given) != 1:
        raise place.error(f"needs exactly one of {', '.join(_KINDS)}")
    kind, value = _KINDS[given[0]], inner.node(given[0])
    if kind is StringKind.PRESENCE:
        is_nothing = isinstance(value, Sequence) and not value.items
        if not is_nothing and not (isinstance(value, Scalar) and not value.text):
            raise inner.place(given[0]).error("is any text at all; write {Presence: []}")
        return StringMatch(kind)
    text = value.text if isinstance(value, Scalar) else ""
    if text.startswith(SCHEME):
        return StringMatch(kind, text)
    return StringMatch(kind, checked(text, _PART, inner.place(given[0])))


def _account(node: Node, place: Place) -> ServiceAccountMatch:
    if isinstance(node, Scalar):
        namespace, _, name = text_of(node, _PART, place).partition("/")
        return ServiceAccountMatch(checked(namespace, NAMESPACE, place), checked(name, NAME, place))
    inner = Fields(node, place, _ACCOUNT_KEYS)
    return ServiceAccountMatch(inner.text("namespace", NAMESPACE), inner.text("serviceAccount", NAME))


def _block(node: Node, place: Place) -> IpBlock:
    return IpBlock(*block_of(node.text if isinstance(node, Scalar) else "", place))


def _port(node: Node, place: Place) -> int:
    return number_of(node, *PORTS, place)


FIELDS: Final[dict[str, tuple[str, Callable[[Node, Place], Any]]]] = {
    "namespaces": ("namespaces", _namespace),
    "notNamespaces": ("not_namespaces", _namespace),
    "principals": ("principals", _principal),
    "notPrincipals": ("not_principals", _principal),
    "serviceAccounts": ("service_accounts", _account),
    "notServiceAccounts": ("not_service_accounts", _account),
    "sourceIps": ("source_ips", _block),
    "notSourceIps": ("not_source_ips", _block),
    "destinationIps": ("destination_ips", _block),
    "notDestinationIps": ("not_destination_ips", _block),
    "destinationPorts": ("destination_ports", _port),
    "notDestinationPorts": ("not_destination_ports", _port),
}
