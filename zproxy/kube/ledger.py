"""What is known of the objects of one kind: lists replace it, events of a watch change it.

Nothing here does I/O. The rules are those of Kubernetes' API concepts: a list, page by page, is one state at
one resourceVersion; a watch from there tells every change after it; a bookmark moves the version on without a
change; "410 Gone" means that the server has forgotten that version, so that only a new list helps.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from zproxy.sources.pace import Pause, hurry

T = TypeVar("T")

Json = Mapping[str, Any]
_UNREADABLE: Final = (KeyError, TypeError, AttributeError, ValueError)
GONE: Final = 410


class Expired(Exception):
    """The server has forgotten the version that was asked for; only a list from the beginning helps."""


class WatchFailed(Exception):
    """A watch brought an error of another kind than "gone", or something that is no event."""


class NoList(Exception):
    """An answer that is no list of objects."""


class Kind(NamedTuple, Generic[T]):
    """One kind of objects."""

    name: str
    """As in messages and RBAC rules: `pods`."""
    path: str
    """Of its list, below the server's address."""
    read: Callable[[Json], T]
    """Returns the fields that are used; may raise what indexing and iterating raise."""
    only_metadata: bool = False
    """Whether the server may leave out everything but the metadata."""


class Page(NamedTuple, Generic[T]):
    """One page of a list."""

    objects: dict[str, T]
    """By `namespace/name`, or `name` where there are no namespaces."""
    version: str
    more: str
    """What to ask for the next page with; empty after the last one."""
    unreadable: tuple[str, ...]
    """Keys and faults of objects that were left out."""


class Ledger(Generic[T]):
    """The objects of one kind; changed on one thread only."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind = kind
        self.objects: dict[str, T] = {}
        """By `namespace/name`."""
        self.version = ""
        """From which a watch goes on; empty where a list has to come first."""
        self.is_synced = False
        """Whether a list was ever complete; what was known stays known while a new one is under way."""

    def read_page(self, body: bytes, pause: Pause = hurry) -> Page[T]:
        """Return what a page says; changes nothing, so that a thread may do it. Raise NoList."""
        try:
            document = json.loads(body)
            metadata = dict(document["metadata"])
        except _UNREADABLE as error:
            raise NoList(f"an answer that is no list: {body[:60]!r}") from error
        objects: dict[str, T] = {}
        faults = []
        for item in document.get("items") or ():
            pause()
            try:
                objects[key_of(item)] = self.kind.read(item)
            except _UNREADABLE as error:
                faults.append(_fault(item, error))
        version, more = (str(metadata.get(name) or "") for name in ("resourceVersion", "continue"))
        return Page(objects, version, more, tuple(faults))

    def replace(self, objects: dict[str, T], version: str) -> bool:
        """Take a complete list; return whether it says something new."""
        is_news = not self.is_synced or objects != self.objects
        self.objects, self.version, self.is_synced = objects, version, True
        return is_news

    def forget_version(self) -> None:
        """Have the next round begin with a list; what is known stays until that is complete."""
        self.version = ""

    def apply(self, line: bytes) -> tuple[bool, str]:
        """Take one event; return whether it says something new, and the fault of an unreadable object.

        Raise Expired or WatchFailed.
        """
        kind, item = _event(line)
        if kind == "ERROR":
            raise _error_of(item)
        if kind not in {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}:
            raise WatchFailed(f"an event of the unknown type {kind[:40]!r}")
        is_news, fault = (False, "") if kind == "BOOKMARK" else self._change(kind, item)
        self.version = str(item["metadata"].get("resourceVersion") or self.version)
        return is_news, fault

    def _change(self, kind: str, item: Json) -> tuple[bool, str]:
        key = key_of(item)
        former = self.objects.get(key)
        if kind == "DELETED":
            return self.objects.pop(key, None) is not None, ""
        try:
            now = self.kind.read(item)
        except _UNREADABLE as error:
            return self.objects.pop(key, None) is not None, _fault(item, error)
        if now == former:
            return False, ""
        self.objects[key] = now
        return True, ""


def key_of(item: Json) -> str:
    """Return `namespace/name` of an object, or its name alone."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _event(line: bytes) -> tuple[str, Json]:
    try:
        event = json.loads(line)
        kind, item = event["type"], event["object"]
        if kind != "ERROR":
            item["metadata"].get("name")
    except _UNREADABLE as error:
        raise WatchFailed(f"something that is no event: {line[:60]!r}") from error
    return str(kind), item


def _error_of(status: Json) -> Exception:
    if not isinstance(status, dict):
        return WatchFailed("an error without a status")
    message = str(status.get("message") or status.get("reason") or "no reason given")[:200]
    return Expired(message) if status.get("code") == GONE else WatchFailed(message)


def _fault(item: Any, error: Exception) -> str:
    try:
        key = key_of(item)
    except _UNREADABLE:
        key = "an object without a name"
    return f"{key}: {type(error).__name__}: {error}"
