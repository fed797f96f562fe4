"""Verdicts of policy for the connections of one pod, each decided once per snapshot of the mesh."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.observe.connections import Peers
from zproxy.state.policy import Attempt, Decide, Verdict, judge
from zproxy.state.store import Mesh

VERDICTS_CACHED: Final = 4096
"""Beyond it all are decided anew: who tries many addresses only makes himself slow."""
SENTENCES_TOLD: Final = 64
"""For each pod until policies change; peers can make dry runs say something new all the time."""
POLICIES_COUNTED: Final = 256
"""Refusals by further policies that cannot be judged are counted together."""
OTHERS: Final = "others"
REJECTED: Final = "connection closed due to policy rejection: "

_log = logging.getLogger("zproxy.policy")


class Authorizer:
    """Asks `decide`. A snapshot NEVER changes, so its identity is the version of the policies."""

    def __init__(
        self,
        workload: Callable[[], Workload],
        mesh: Callable[[], Mesh],
        decide: Decide,
        failures: Counter[tuple[str, str]],
    ) -> None:
        """Count refusals by policies that could not be judged in `failures`, by cause and policy."""
        self._workload = workload
        self._mesh = mesh
        self._decide = decide
        self._failures = failures
        self._version: Mesh | None = None
        self._verdicts: dict[tuple[Peers, str, Endpoint], Verdict] = {}
        self._told: set[str] = set()
        self._told_about: object = None
        """Tells by its identity which policies the sentences are about."""

    def __call__(self, peers: Peers, source_ip: str, target: Endpoint) -> Verdict:
        """Decide whether `peers.source_identity` at `source_ip` may reach `target`, a port of the pod."""
        mesh = self._mesh()
        if mesh is not self._version:
            self._version = mesh
            self._verdicts.clear()
            if mesh.policy_memo is not self._told_about:
                self._told_about = mesh.policy_memo
                self._told.clear()
        key = (peers, source_ip, target)
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= VERDICTS_CACHED:
                self._verdicts.clear()
            attempt = Attempt(self._workload(), peers.source_identity, source_ip, target)
            verdict = self._verdicts[key] = judge(mesh, attempt, self._decide)
            self._tell(attempt.workload, verdict)
        if verdict.cause:
            self._count(verdict)
        return verdict

    def _count(self, verdict: Verdict) -> None:
        key = (verdict.cause, verdict.policy)
        is_known = key in self._failures or len(self._failures) < POLICIES_COUNTED
        self._failures[key if is_known else (verdict.cause, OTHERS)] += 1

    def _tell(self, workload: Workload, verdict: Verdict) -> None:
        """Log what an operator has to mend, and what is tried out; each sentence once."""
        for sentence in verdict.dry_runs:
            self._say(logging.INFO, sentence)
        if verdict.cause:
            self._say(
                logging.WARNING,
                f"{workload.pod} refuses connections that policy {verdict.policy} should decide about: "
                f"{verdict.reason}; mend the policy, or run with --compat ztunnel to pass over it",
            )

    def _say(self, level: int, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < SENTENCES_TOLD:
            self._told.add(sentence)
            _log.log(level, "%s", sentence)
