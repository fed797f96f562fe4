"""What was tried for one connection before the way that it is on now."""

from typing import Final, NamedTuple

from zproxy.model.route import Upstream


class Tries(NamedTuple):
    """Ways that led to nobody."""

    said: bytes = b""
    """What was read from the app and reached nobody."""
    routes: tuple[Upstream, ...] = ()

    def after(self, route: Upstream, said: bytes) -> "Tries":
        """Return what was tried, now that `route` has led to nobody, too."""
        return Tries(said, (*self.routes, route))

    @property
    def uids(self) -> frozenset[str]:
        """Whoever was tried: who was dialled, and who was meant beyond gateways."""
        return frozenset(uid for route in self.routes for uid in (route.chosen, route.workload.uid))


FIRST: Final = Tries()
"""Nothing was tried yet."""
