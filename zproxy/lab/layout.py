"""The lab as values: two nodes on one link, one pod each, their names and addresses.

Addresses are those of the article this lab re-enacts: nodes in 172.18.0.0/24, pods in 10.244.N.0/24.
"""

from typing import Final, NamedTuple


class NodeSite(NamedTuple):
    """A node: a network namespace that routes between its pod and the other node."""

    name: str
    netns: str
    ip4: str
    ip6: str
    pod_gateway4: str
    """The node's own address on the pod's link."""
    pod_gateway6: str


class PodSite(NamedTuple):
    """A pod: a network namespace with one veth into its node."""

    namespace: str
    name: str
    service_account: str
    netns: str
    ip4: str
    ip6: str
    pod_net4: str
    """The pod network of its node, which the other node routes to."""
    pod_net6: str

    @property
    def pod(self) -> str:
        """`namespace/name`, as commands take and print it."""
        return f"{self.namespace}/{self.name}"


class ServiceSite(NamedTuple):
    """The service before the server pod."""

    namespace: str
    name: str
    vips: tuple[str, ...]
    ports: tuple[tuple[int, int], ...]
    """Of the service, and of the pod behind it."""

    @property
    def hostname(self) -> str:
        """Its fully qualified name."""
        return f"{self.name}.{self.namespace}.svc.{CLUSTER_DOMAIN}"


class Layout(NamedTuple):
    """The whole lab. `pods[i]` ALWAYS runs on `nodes[i]`."""

    nodes: tuple[NodeSite, NodeSite]
    pods: tuple[PodSite, PodSite]

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Names of all its network namespaces, pods first: the order in which they may go."""
        return tuple(pod.netns for pod in self.pods) + tuple(node.netns for node in self.nodes)


CLUSTER_DOMAIN: Final = "cluster.local"
CLUSTER_DNS: Final = "10.96.0.10"
"""Where a Kubernetes cluster made by kubeadm or kind has its DNS, and its pods' resolv.conf leads."""
OTHER_DNS: Final = "192.0.2.53"
"""A resolver outside of the cluster, for who asks it by its address; of TEST-NET-1 (RFC 5737)."""
NODE_PREFIX4: Final = 24
NODE_PREFIX6: Final = 64
APP_PORTS: Final = (8080, 8081)
"""Where the HTTP app in the server pod listens."""
CLIENT: Final = "demo/client"
SERVER: Final = "demo/server"
SERVICE: Final = ServiceSite(
    "demo", "server", ("10.96.0.80", "fd00:10:96::80"), ((80, 8080), *((port, port) for port in APP_PORTS))
)
"""In front of the server pod: its own ports, and 80 as well."""


def make_layout(prefix: str = "") -> Layout:
    """Return the lab; a prefix keeps the nodes and namespaces of a second one apart from the first's."""
    return Layout(
        nodes=(_node(prefix, "a", 1), _node(prefix, "b", 2)),
        pods=(_pod(prefix, "client", 1), _pod(prefix, "server", 2)),
    )


def _node(prefix: str, letter: str, number: int) -> NodeSite:
    return NodeSite(
        name=f"{prefix}node-{letter}",
        netns=f"{prefix}zproxy-node-{letter}",
        ip4=f"172.18.0.{number + 2}",
        ip6=f"fd00:172:18::{number + 2}",
        pod_gateway4=f"10.244.{number}.1",
        pod_gateway6=f"fd00:10:244:{number}::1",
    )


def _pod(prefix: str, name: str, number: int) -> PodSite:
    return PodSite(
        namespace="demo",
        name=name,
        service_account=name,
        netns=f"{prefix}demo-{name}",
        ip4=f"10.244.{number}.5",
        ip6=f"fd00:10:244:{number}::5",
        pod_net4=f"10.244.{number}.0/24",
        pod_net6=f"fd00:10:244:{number}::/64",
    )
