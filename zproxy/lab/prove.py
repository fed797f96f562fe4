"""`zproxy prove`: the five claims of "ztunnel, unmasked", judged by one run between two enrolled pods.

A sixth is about services, and is made where the second pod is alone behind one.
"""

from typing import Final

from zproxy.lab import claim_name, claim_path, claim_place, claim_wire
from zproxy.lab.observation import Observation
from zproxy.lab.observe import observe
from zproxy.lab.proof import Proof
from zproxy.node.client import Client, running_nodes

CLAIMS: Final = (
    claim_place.prove,
    claim_path.prove_endpoints,
    claim_path.prove_tunnels,
    claim_wire.prove_stream,
    claim_wire.prove_datagrams,
)


def prove(source: str, target: str, ports: tuple[int, ...]) -> list[Proof]:
    """Measure and judge; raise ZproxyError when nothing could be measured."""
    return judge(observe(source, target, ports, {node: Client(node) for node in running_nodes()}))


def judge(seen: Observation) -> list[Proof]:
    """Return the verdict on each claim, in order."""
    proofs = [claim(seen) for claim in CLAIMS]
    if seen.service is not None:
        proofs.append(claim_name.prove(seen, seen.service))
    return proofs
