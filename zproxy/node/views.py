"""What the control socket shows: pods, the mesh, certificates, connections, tunnels, status."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from zproxy import __version__
from zproxy.identity.manager import CertificateManager
from zproxy.node.control import Command
from zproxy.node.manager import Manager
from zproxy.node.mesh_rows import endpoint_rows, policy_rows, service_rows, workload_rows
from zproxy.node.pressure import Pressure
from zproxy.node.reload import CurrentMesh
from zproxy.node.workers import PodWorker
from zproxy.proxy.straw import TunnelView
from zproxy.steering.steering import Steering


class Views:
    """Read-only; every row's keys are stable, since scripts read them with `-o json`."""

    def __init__(
        self,
        workers: Sequence[PodWorker],
        manager: Manager,
        certificates: CertificateManager,
        mesh: CurrentMesh,
        pressure: Pressure,
        steering: Steering,
    ) -> None:
        self._node = manager.node
        self._workers = workers
        self._manager = manager
        self._certificates = certificates
        self._mesh = mesh
        self._pressure = pressure
        self._steering = steering
        self.features: dict[str, Callable[[], dict[str, Any]]] = {}
        """What of the daemon is on that not every daemon has: name → its figures."""

    def commands(self) -> dict[str, Command]:
        """Return the commands under the names that the CLI uses."""
        return {
            "status": self.status,
            "pods": self._manager.rows,
            "workloads": self.workloads,
            "services": self.services,
            "policies": self.policies,
            "endpoints": self.endpoints,
            "certs": self.certs,
            "connections": self.connections,
            "tunnels": self.tunnels,
        }

    async def status(self) -> dict[str, Any]:
        """Return the daemon's own figures, of all workers together and what each has to carry."""
        figures = await asyncio.gather(*(worker.figures() for worker in self._workers))
        reasons = sum((of.reasons for of in figures), Counter[str]())
        probes = self._steering.probes
        pods = Counter(pod.straw.worker.number for pod in self._manager.pods.values())
        return {
            "node": self._node,
            "version": __version__,
            "pid": os.getpid(),
            "pods": len(self._manager.pods),
            "steering": "external" if self._steering.is_external else "ebpf",
            "attach": self._steering.attach_mode.value,
            "probe_mode": probes.mode.value,
            "probe_why": probes.why,
            "kubelet_cgroup": str(probes.cgroup or ""),
            "node_ips": list(probes.node_ips),
            "connections_open": sum(of.live for of in figures),
            "connections_opened_total": sum(of.opened for of in figures),
            "connections_closed_total": sum(of.closed for of in figures),
            "connections_failed_total": sum(of.failed for of in figures),
            "connections_failed_by_reason": dict(sorted(reasons.items())),
            "bytes_sent_total": sum(of.bytes_sent for of in figures),
            "bytes_recv_total": sum(of.bytes_recv for of in figures),
            "scarce": self._pressure.alarms,
            "mesh_behind": self._mesh.behind,
            "workers": [
                {"worker": worker.number, "pods": pods[worker.number], "connections_open": of.live}
                for worker, of in zip(self._workers, figures, strict=True)
            ],
            **{name: look() for name, look in self.features.items()},
        }

    def workloads(self) -> list[dict[str, Any]]:
        """Return a row per workload that the mesh knows, of all nodes."""
        return workload_rows(self._mesh(), self._manager.pods)

    def services(self) -> list[dict[str, Any]]:
        """Return a row per service that the mesh knows."""
        return service_rows(self._mesh())

    def policies(self) -> list[dict[str, Any]]:
        """Return a row per authorization policy that the mesh knows."""
        return policy_rows(self._mesh())

    async def endpoints(self) -> list[dict[str, Any]]:
        """Return a row per endpoint of which a worker's balancer knows something."""
        straws = {pod.straw.worker.number: pod.straw for pod in self._manager.pods.values()}
        found = await asyncio.gather(*(straw.known() for straw in straws.values()))
        mesh = self._mesh()
        return endpoint_rows(mesh, dict(zip(straws, found, strict=True)))

    def certs(self) -> list[dict[str, Any]]:
        """Return a row per certificate of this node's pods, and their roots."""
        return [
            {
                "identity": row.identity,
                "type": row.type,
                "status": row.status,
                "valid": row.is_valid,
                "serial": row.serial,
                "not_after": row.not_after.strftime("%Y-%m-%dT%H:%M:%SZ") if row.not_after else "",
                "not_before": row.not_before.strftime("%Y-%m-%dT%H:%M:%SZ") if row.not_before else "",
            }
            for row in self._certificates.certificates()
        ]

    async def connections(self) -> list[dict[str, Any]]:
        """Return a row per lately ended and per live connection of all workers; the newest is last."""
        rows = await asyncio.gather(*(worker.connections() for worker in self._workers))
        return sorted(chain.from_iterable(rows), key=lambda row: (row["state"] == "open", row["id"]))

    async def tunnels(self) -> list[dict[str, Any]]:
        """Return a row per tunnel of this node's pods."""
        pods = tuple(self._manager.pods.values())
        views = (partial(_tunnel_row, pod.name, pod.straw.worker.number) for pod in pods)
        looks = (pod.straw.tunnels(view) for pod, view in zip(pods, views, strict=True))
        return list(chain.from_iterable(await asyncio.gather(*looks)))


def _tunnel_row(pod: str, worker: int, tunnel: TunnelView, now: float) -> dict[str, Any]:
    source, destination = tunnel.identities
    return {
        "id": tunnel.id,
        "pod": pod,
        "worker": worker,
        "role": tunnel.role,
        "state": tunnel.state.value,
        "local": str(tunnel.local),
        "remote": str(tunnel.remote),
        "src_identity": source,
        "dst_identity": destination,
        "streams": tunnel.wire.open_streams,
        "streams_total": tunnel.streams_total,
        "bytes_sent": tunnel.bytes_sent,
        "bytes_recv": tunnel.bytes_recv,
        "age_s": round(now - tunnel.opened, 1),
        "tls": tunnel.cipher,
        "alpn": tunnel.tls.alpn or "",
    }
