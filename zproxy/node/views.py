"""What the control socket shows: pods, workloads, certificates, connections, tunnels, status."""

import os
from collections.abc import Callable
from typing import Any

from zproxy import __version__
from zproxy.identity.manager import CertificateManager
from zproxy.net.worker import Worker
from zproxy.node.control import Command
from zproxy.node.manager import Manager
from zproxy.observe.connections import Connections
from zproxy.proxy.straw import TunnelView
from zproxy.state.store import Mesh


class Views:
    """Read-only; every row's keys are stable, since scripts read them with `-o json`."""

    def __init__(
        self,
        node: str,
        worker: Worker,
        manager: Manager,
        connections: Connections,
        certificates: CertificateManager,
        mesh: Callable[[], Mesh],
    ) -> None:
        self._node = node
        self._worker = worker
        self._manager = manager
        self._connections = connections
        self._certificates = certificates
        self._mesh = mesh

    def commands(self) -> dict[str, Command]:
        """Return the commands under the names that the CLI uses."""
        return {
            "status": self.status,
            "pods": self._manager.rows,
            "workloads": self.workloads,
            "certs": self.certs,
            "connections": self.connections,
            "tunnels": self.tunnels,
        }

    def status(self) -> dict[str, Any]:
        """Return the daemon's own figures."""
        totals = self._connections.totals
        return {
            "node": self._node,
            "version": __version__,
            "pid": os.getpid(),
            "pods": len(self._manager.pods),
            "connections_open": self._connections.live(),
            "connections_opened_total": totals.opened,
            "connections_closed_total": totals.closed,
            "connections_failed_total": totals.failed,
            "connections_failed_by_reason": dict(sorted(totals.reasons.items())),
            "bytes_sent_total": totals.bytes_sent,
            "bytes_recv_total": totals.bytes_recv,
        }

    def workloads(self) -> list[dict[str, Any]]:
        """Return a row per workload that the mesh knows, of all nodes."""
        return [
            {
                "namespace": workload.namespace,
                "name": workload.name,
                "address": list(workload.workload_ips),
                "node": workload.node,
                "protocol": workload.protocol.value,
                "identity": str(workload.identity),
                "uid": workload.uid,
                "status": workload.status,
                "enrolled": workload.pod in self._manager.pods,
            }
            for workload in sorted(self._mesh().workloads, key=lambda w: (w.namespace, w.name))
        ]

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

    def connections(self) -> list[dict[str, Any]]:
        """Return a row per live and per lately ended connection."""
        return list(self._connections.rows(self._worker.poller.clock()))

    def tunnels(self) -> list[dict[str, Any]]:
        """Return a row per tunnel of this node's pods."""
        now = self._worker.poller.clock()
        return [
            _tunnel_row(pod.name, tunnel, now)
            for pod in self._manager.pods.values()
            for tunnel in pod.straw.tunnels()
        ]


def _tunnel_row(pod: str, tunnel: TunnelView, now: float) -> dict[str, Any]:
    source, destination = tunnel.identities
    return {
        "id": tunnel.id,
        "pod": pod,
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
