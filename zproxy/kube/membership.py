"""Which pods are in the mesh, and how each is to be enrolled: what labels and annotations decide."""

from typing import Final, NamedTuple

from zproxy.kube.objects import AMBIENT, NO_DATAPLANE, Namespace, Pod

NO_NAMESPACE: Final = Namespace("", "")
"""One that is not known: it labels nothing."""


class Membership(NamedTuple):
    """Whether a pod is to be in the mesh, and the reason, for people."""

    is_wanted: bool
    why: str


def membership(pod: Pod, namespace: Namespace = NO_NAMESPACE) -> Membership:
    """Return what istio-cni would decide about `pod`: its own label counts before its namespace's."""
    mode = pod.mode or namespace.mode
    if mode != AMBIENT:
        what = f"is {mode!r}" if mode == NO_DATAPLANE else f"is not {AMBIENT!r}"
        return Membership(False, f"the label of its data plane {what}")
    if pod.host_network:
        return Membership(False, "it is on its node's network")
    if pod.has_sidecar:
        return Membership(False, "it has a sidecar")
    if pod.is_over:
        return Membership(False, "it has ended")
    return Membership(True, "its own label" if pod.mode else "its namespace's label")
