"""The lab's mesh state: two HBONE workloads, in the shape of ztunnel's LOCAL_XDS file."""

from zproxy.lab.layout import Layout, NodeSite, PodSite


def mesh_text(layout: Layout) -> str:
    """Return the YAML that both daemons read."""
    pairs = zip(layout.nodes, layout.pods, strict=True)
    return "workloads:\n" + "".join(_workload(node, pod) for node, pod in pairs)


def _workload(node: NodeSite, pod: PodSite) -> str:
    return f"""\
- uid: Kubernetes//Pod/{pod.namespace}/{pod.name}
  name: {pod.name}
  namespace: {pod.namespace}
  serviceAccount: {pod.service_account}
  workloadIps: ["{pod.ip4}", "{pod.ip6}"]
  protocol: HBONE
  node: {node.name}
"""
