"""The lab's mesh state: two HBONE workloads and a service, in the shape of ztunnel's LOCAL_XDS file."""

from typing import Final

from zproxy.lab.layout import SERVER, SERVICE, Layout, NodeSite, PodSite

MARK: Final = "# What follows is `zproxy lab policy` at work; it goes by itself.\n"
"""Stands in the file before the policies that are shown; still there, it tells of a run that was killed."""


def mesh_text(layout: Layout) -> str:
    """Return the YAML that both daemons read."""
    pairs = zip(layout.nodes, layout.pods, strict=True)
    return "workloads:\n" + "".join(_workload(node, pod) for node, pod in pairs) + _services()


def _workload(node: NodeSite, pod: PodSite) -> str:
    text = f"""\
- uid: Kubernetes//Pod/{pod.namespace}/{pod.name}
  name: {pod.name}
  namespace: {pod.namespace}
  serviceAccount: {pod.service_account}
  workloadIps: ["{pod.ip4}", "{pod.ip6}"]
  protocol: HBONE
  node: {node.name}
"""
    if pod.pod == SERVER:
        text += f"  services: {{{SERVICE.namespace}/{SERVICE.hostname}: {_ports()}}}\n"
    return text


def _services() -> str:
    vips = ", ".join(f'"/{vip}"' for vip in SERVICE.vips)
    return f"""\
services:
- name: {SERVICE.name}
  namespace: {SERVICE.namespace}
  hostname: {SERVICE.hostname}
  vips: [{vips}]
  ports: {_ports()}
"""


def _ports() -> str:
    return "{" + ", ".join(f"{port}: {target}" for port, target in SERVICE.ports) + "}"
