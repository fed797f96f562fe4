"""Records by a key that several of them may share; copied on change."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Record = TypeVar("Record")


class Index(Generic[Key, Record]):
    """NEVER changes. What shares a key stands in the order of preference."""

    __slots__ = ("_found", "_keys", "_rank")

    def __init__(
        self,
        keys: Callable[[Record], Iterable[Key]],
        rank: Callable[[Record], Any],
        found: Mapping[Key, tuple[Record, ...]] | None = None,
    ) -> None:
        """Begin with nothing. `keys` of a record, each once; the smallest `rank` is preferred."""
        self._keys = keys
        self._rank = rank
        self._found = found or {}

    def __getitem__(self, key: Key) -> tuple[Record, ...]:
        """Return what has `key`; nothing is an answer, too."""
        return self._found.get(key, ())

    def keys(self) -> Iterable[Key]:
        """Return the keys that some record has."""
        return self._found.keys()

    def first(self, key: Key) -> Record | None:
        """Return the preferred record that has `key`."""
        found = self._found.get(key)
        return found[0] if found else None

    def changed(self, removed: Iterable[Record], added: Iterable[Record]) -> "Index[Key, Record]":
        """Return an index without `removed`, which are records of this one, and with `added`."""
        leaving, coming = self._by_key(removed), self._by_key(added)
        if not leaving and not coming:
            return self
        found = dict(self._found)
        for key in leaving.keys() | coming.keys():
            gone = {id(record) for record in leaving.get(key, ())}
            kept = [record for record in found.get(key, ()) if id(record) not in gone]
            kept += coming.get(key, ())
            if kept:
                found[key] = tuple(sorted(kept, key=self._rank))
            else:
                del found[key]
        return Index(self._keys, self._rank, found)

    def _by_key(self, records: Iterable[Record]) -> dict[Key, list[Record]]:
        found: dict[Key, list[Record]] = {}
        for record in records:
            for key in self._keys(record):
                found.setdefault(key, []).append(record)
        return found
