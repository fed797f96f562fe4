"""What is to be done so that the pods of this node are in the mesh, or out of it, as Kubernetes has it.

Pure, and by the state and not by its changes: whatever was missed meanwhile is done now.
"""

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from zproxy.kube.membership import membership
from zproxy.kube.objects import Namespace, Pod


class Enrolled(NamedTuple):
    """A pod that this controller has enrolled, as it was then."""

    uid: str
    dns: bool


class Plan(NamedTuple):
    """In the order in which it is to be done."""

    unenroll: list[str]
    """`namespace/name`."""
    enroll: list[Pod]
    """Also those whose options have changed, or that are another pod of the same name by now."""
    annotate: list[Pod]
    """Enrolled, and their annotation does not say so."""
    clear: list[Pod]
    """Not enrolled, and their annotation says that they are."""


def dns_of(pod: Pod) -> bool:
    """Return whether the pod's DNS is to go through the mesh: yes, unless its annotation says no."""
    return pod.dns is not False


def plan(
    pods: Iterable[tuple[Pod, Namespace]],
    present: Container[str],
    ours: Mapping[str, Enrolled],
    *,
    verify: bool = False,
) -> Plan:
    """Return what to do about the `pods` of this node, of which `present` are enrolled, `ours` by us.

    With `verify` all that are wanted are to be enrolled once more: that finds those with a new sandbox.
    A pod that somebody enrolled by hand, and whose annotation does not say that it is in the mesh, is left as
    it is.
    """
    made = Plan([], [], [], [])
    seen = set()
    for pod, namespace in pods:
        seen.add(pod.key)
        is_in = pod.key in present
        if membership(pod, namespace).is_wanted:
            if verify or not is_in or ours.get(pod.key) != Enrolled(pod.uid, dns_of(pod)):
                made.enroll.append(pod)
            elif not pod.redirected:
                made.annotate.append(pod)
        elif is_in and (pod.key in ours or pod.redirected):
            made.unenroll.append(pod.key)
        elif not is_in and pod.redirected and not pod.is_over:
            made.clear.append(pod)
    made.unenroll.extend(name for name in ours if name not in seen and name in present)
    return made
