"""Verdicts of policy for the connections of one pod, each decided once per snapshot of the mesh."""

from collections.abc import Callable
from typing import Final

from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.observe.connections import Peers
from zproxy.state.policy import Attempt, Decide, Verdict, judge
from zproxy.state.store import Mesh

VERDICTS_CACHED: Final = 4096
"""Beyond it all are decided anew: who tries many addresses only makes himself slow."""
REJECTED: Final = "connection closed due to policy rejection: "


class Authorizer:
    """Asks `decide`. A snapshot NEVER changes, so its identity is the version of the policies."""

    def __init__(self, workload: Callable[[], Workload], mesh: Callable[[], Mesh], decide: Decide) -> None:
        self._workload = workload
        self._mesh = mesh
        self._decide = decide
        self._version: Mesh | None = None
        self._verdicts: dict[tuple[Peers, str, Endpoint], Verdict] = {}

    def __call__(self, peers: Peers, source_ip: str, target: Endpoint) -> Verdict:
        """Decide whether `peers.source_identity` at `source_ip` may reach `target`, a port of the pod."""
        mesh = self._mesh()
        if mesh is not self._version:
            self._version = mesh
            self._verdicts.clear()
        key = (peers, source_ip, target)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= VERDICTS_CACHED:
                self._verdicts.clear()
            attempt = Attempt(self._workload(), peers.source_identity, source_ip, target)
            verdict = self._verdicts[key] = judge(mesh, attempt, self._decide)
        return verdict
