"""Policies by what a connection must be for them to match, so that those that cannot are not asked.

A rule can only match if each of its clauses does. One clause is its anchor: one in which every match names
exact values, or blocks, of a field. A policy is asked when the connection has one of the values that
its rules are anchored at, or when a rule has no anchor. What a policy means is not decided here
(zproxy.state.rbac); this only leaves out questions whose answer is no.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final

from zproxy.model.policy import Authorization, Clause, IpBlock, Match, Rule, StringKind, StringMatch
from zproxy.state.rbac import Facts, number_of

_Key = tuple[int, Hashable]
"""The field, by its place in _FIELDS, and the value."""


class Anchored:
    """Policies in a fixed order. NEVER changes."""

    __slots__ = ("_always", "_by_key", "_lengths", "policies")

    def __init__(self, policies: Iterable[Authorization]) -> None:
        self.policies = tuple(policies)
        self._always: set[int] = set()
        self._by_key: dict[_Key, list[int]] = {}
        self._lengths: set[tuple[bool, int]] = set()
        """Of the blocks that are anchors: whether IPv6, and how many bits of the address lie behind them."""
        for number, policy in enumerate(self.policies):
            self._add(number, policy)

    def may_match(self, facts: Facts) -> Iterator[Authorization]:
        """Yield those that have to be asked about `facts`, in order."""
        found = set(self._always)
        for key in self._keys(facts):
            found.update(self._by_key.get(key, ()))
        for number in sorted(found):
            yield self.policies[number]

    def __len__(self) -> int:
        return len(self.policies)

    def _keys(self, facts: Facts) -> Iterator[_Key]:
        yield 0, facts.principal
        yield 1, facts.service_account
        yield 2, facts.namespace
        if self._lengths:
            is_v6, value, _ = number_of(facts.source_ip)
            for block_is_v6, shift in self._lengths:
                if block_is_v6 == is_v6:
                    yield 3, (is_v6, shift, value >> shift)
        yield 4, facts.target.port

    def _add(self, number: int, policy: Authorization) -> None:
        anchors = [_anchor(rule) for rule in policy.rules]
        if not anchors or None in anchors:
            self._always.add(number)
            return
        for key in {key for keys in anchors if keys is not None for key in keys}:
            self._by_key.setdefault(key, []).append(number)
            field, value = key
            if field == _BLOCKS and isinstance(value, tuple):
                self._lengths.add(value[:2])


def _anchor(rule: Rule) -> list[_Key] | None:
    """Return the keys of the anchor of `rule`: it matches only what has one of them. None: it has none."""
    found = [keys for clause in rule if (keys := _keys_of(clause)) is not None]
    return min(found, key=lambda keys: max(field for field, _ in keys), default=None)


def _keys_of(clause: Clause) -> list[_Key] | None:
    """Return keys of which a connection has one if `clause` matches it; None where there are none."""
    found: list[_Key] = []
    for match in clause:
        keys = _keys_of_match(match)
        if not keys:
            return None
        found += keys
    return found or None


def _keys_of_match(match: Match) -> list[_Key]:
    for field, (values_of, key_of) in enumerate(_FIELDS):
        keys = [key_of(value) for value in values_of(match)]
        if keys and None not in keys:
            return [(field, key) for key in keys]
    return []


def _exact(value: StringMatch) -> str | None:
    return value.value if value.kind is StringKind.EXACT else None


def _block(value: IpBlock) -> tuple[bool, int, int]:
    is_v6, first, bits = number_of(value.ip)
    shift = bits - value.length
    return is_v6, shift, first >> shift


_BLOCKS: Final = 3
_FIELDS: Final[tuple[tuple[Callable[[Match], Sequence[Any]], Callable[[Any], Hashable | None]], ...]] = (
    (lambda match: match.principals, _exact),
    (lambda match: match.service_accounts, str),
    (lambda match: match.namespaces, _exact),
    (lambda match: match.source_ips, _block),
    (lambda match: match.destination_ports, int),
)
"""Fields that can be anchors, the most telling first; `_keys` goes by the same order."""
