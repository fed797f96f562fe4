"""Labels of a workload in W3C baggage, as mesh proxies tell them each other (written by wire.headers)."""

from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from zproxy.model.identity import SpiffeId
from zproxy.model.workload import Locality, Workload

LONGEST: Final = 4096
"""Bytes of baggage that are looked at."""
_KINDS: Final = ("deployment", "statefulset", "daemonset", "job", "cronjob", "pod")
_LONGEST_LABEL: Final = 253


@lru_cache(maxsize=1024)
def workload_of(baggage: str, identity: SpiffeId) -> Workload | None:
    """Return the workload that `baggage` describes; its namespace and account are those of `identity`.

    The identity was proven, the rest is the peer's word, good for labels only. None when it says nothing.
    """
    labels = _labels(baggage[:LONGEST])
    kind = next((each for each in _KINDS if f"k8s.{each}.name" in labels), "")
    name = labels.get(f"k8s.{kind}.name") or labels.get("service.name", "")
    if not name:
        return None
    return Workload(
        uid=f"baggage:{identity}:{baggage[:LONGEST]}",
        name=name,
        namespace=identity.namespace,
        service_account=identity.service_account,
        trust_domain=identity.trust_domain,
        cluster_id=labels.get("k8s.cluster.name", ""),
        canonical_name=labels.get("service.name", ""),
        canonical_revision=labels.get("service.version", ""),
        workload_name=name,
        workload_type=kind or "pod",
        locality=Locality(labels.get("cloud.region", ""), labels.get("cloud.availability_zone", "")),
    )


def _labels(baggage: str) -> dict[str, str]:
    found = {}
    for member in baggage.split(","):
        key, _, value = member.partition(";")[0].partition("=")
        text = unquote(value.strip())
        if text and text.isprintable() and len(text) <= _LONGEST_LABEL:
            found[key.strip()] = text
    return found
