"""Which pods one connection to istio-cni stands for: ztunnel's state machine, without a socket.

It decides and does nothing. What a pod that could not be taken holds (a descriptor of its namespace) is
opaque here: whoever is handed one back closes it.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

H = TypeVar("H")


class ProtocolBroken(Exception):
    """What istio-cni sent makes no sense here; the text says why. Answered, and the connection is ended."""


class Roster(Generic[H]):
    """`pending` are pods that could not be taken yet, by uid, each with what a further try needs."""

    def __init__(self) -> None:
        self.is_connected = False
        self.has_snapshot = False
        self.pending: dict[str, H] = {}
        self.reasons: dict[str, str] = {}
        """Why each of those could not."""
        self._named: set[str] = set()

    @property
    def is_ready(self) -> bool:
        """Whether every pod of the node is taken, as far as istio-cni says."""
        return self.is_connected and self.has_snapshot and not self.pending

    def connect(self) -> None:
        """Begin: pods that run go on; who they are is told anew."""
        self.is_connected = True
        self.has_snapshot = False
        self._named.clear()

    def disconnect(self) -> list[H]:
        """End; return what was pending: it comes again with the next connection."""
        self.is_connected = False
        left = list(self.pending.values())
        self.pending.clear()
        self.reasons.clear()
        return left

    def add(self, uid: str) -> None:
        """A pod is to be taken."""
        if not self.has_snapshot:
            self._named.add(uid)

    def keep(self, uid: str) -> None:
        """A pod is to stay; raise ProtocolBroken when the time for that is over."""
        if self.has_snapshot:
            raise ProtocolBroken("a pod to keep, after the snapshot")
        self._named.add(uid)

    def failed(self, uid: str, held: H, reason: str) -> H | None:
        """A pod could not be taken: `held` is kept for the next try. Return what it takes the place of."""
        former = self.pending.get(uid)
        self.pending[uid] = held
        self.reasons[uid] = reason
        return former if former is not held else None

    def taken(self, uid: str) -> H | None:
        """A pod was taken; return what was held for it."""
        self.reasons.pop(uid, None)
        return self.pending.pop(uid, None)

    def delete(self, uid: str) -> H | None:
        """A pod is to go, one of the snapshot that is under way among them; return what was held for it."""
        self._named.discard(uid)
        return self.taken(uid)

    def snapshot(self, running: Iterable[str]) -> list[str]:
        """All have been named: return those of `running` that were not, which are to go.

        Raise ProtocolBroken when it was over before.
        """
        if self.has_snapshot:
            raise ProtocolBroken("a second end of the snapshot")
        self.has_snapshot = True
        left = [uid for uid in running if uid not in self._named]
        self._named.clear()
        return left
