"""A pod that is steered and served by nobody: its connections are refused until somebody mends the cause."""

from typing import Any, NamedTuple


class Refused(NamedTuple):
    """What is known of it."""

    name: str
    """`namespace/name`."""
    netns: str
    """Path that its namespace was found under, empty when there is none."""
    cookie: int
    reason: str
    """Why it could not be taken up, a sentence."""

    def row(self, node: str) -> dict[str, Any]:
        """Return it as `zproxy pods` shows it; what only a straw has is empty."""
        namespace, _, name = self.name.partition("/")
        return {
            "pod": self.name,
            "namespace": namespace,
            "name": name,
            "node": node,
            "ips": [],
            "netns": {"path": self.netns, "cookie": self.cookie},
            "state": "refused",
            "reason": self.reason,
        }
