"""The policy decision: whether a source may reach a port of a pod. All there is to decide on is an Attempt.

A mesh source that finds policies in its input refuses them, so whatever is asked today is allowed.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.workload import Workload
from zproxy.state.store import Mesh


class Attempt(NamedTuple):
    """Who wants to reach what."""

    workload: Workload
    """Whose port it is; its policies count."""
    identity: SpiffeId | None
    """Proven by mTLS; None on a plain hop, where nobody proves anything."""
    source_ip: str
    """Of the connection that arrived, never what a header claims."""
    target: Endpoint
    """The port of the app."""


class Verdict(NamedTuple):
    """What was decided; `reason` says which policy refused, as a part of a sentence."""

    is_allowed: bool
    reason: str = ""


Decide = Callable[[Mesh, Attempt], Verdict]
"""A pure function: the same snapshot and attempt ALWAYS have the same verdict, so verdicts are cached."""

ALLOWED: Final = Verdict(True)


def judge(mesh: Mesh, attempt: Attempt, decide: Decide) -> Verdict:
    """Return the verdict of `decide`, provided that the mesh agrees whose address the target is."""
    ip, workload = attempt.target.ip, attempt.workload
    owner = mesh.by_ip(ip, workload.network)
    if owner is None:
        return Verdict(False, f"workload not found: the mesh knows nobody at {ip}")
    if owner.uid != workload.uid:
        return Verdict(False, f"workload mismatch: {ip} belongs to {owner.pod}, not to {workload.pod}")
    return decide(mesh, attempt)


def allow_all(mesh: Mesh, attempt: Attempt) -> Verdict:
    """Return what holds where no policy exists."""
    return ALLOWED
