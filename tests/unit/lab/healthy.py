"""An observation in which all claims hold; tests change one thing and see a claim fall."""

import struct
from dataclasses import replace
from typing import Any

from zproxy.lab.evidence.capture import Captured
from zproxy.lab.evidence.firewall import Rules
from zproxy.lab.evidence.links import Link
from zproxy.lab.evidence.packets import TCP, UDP, Packet
from zproxy.lab.evidence.processes import ProcessInfo
from zproxy.lab.evidence.sockets import Owner, SocketInfo
from zproxy.lab.logs import AccessLine
from zproxy.lab.observation import Observation, PodEvidence
from zproxy.lab.rows import ConnectionRow, PodRow, ServiceRow, TunnelRow
from zproxy.lab.traffic import Answer, Datagram
from zproxy.model.addr import Endpoint

CLIENT_IP, SERVER_IP = "10.244.1.5", "10.244.2.5"
NODE_A, NODE_B = "172.18.0.3", "172.18.0.4"
CLIENT_ID, SERVER_ID = "spiffe://cluster.local/ns/demo/sa/client", "spiffe://cluster.local/ns/demo/sa/server"
PORTS = (8080, 8081)
MARKER = b"marker-5f3a"
OUTER = Endpoint(CLIENT_IP, 44224)
PEER = Endpoint(SERVER_IP, 15008)
VIP = "10.96.0.80"
SERVICE = ServiceRow("demo", "server", "server.demo.svc.cluster.local", (VIP,), ((80, 8080),))
HOST = ProcessInfo(2, "kthreadd", (4, 1), ())
BODY = b'{"origin": "10.244.1.5:%d", "url": "/get?marker-5f3a"}\n'
UDP_MARKER = b"datagram-0c77"


def listener(port: int, pid: int, protocol: str = "tcp") -> SocketInfo:
    owner = Owner(pid, "zproxy", 20 + port % 10)
    return SocketInfo(protocol, Endpoint("::", port), Endpoint("::", 0), 100 + port, (owner,))


def tls(*sizes: int, kind: int = 23) -> bytes:
    return b"".join(struct.pack("!BHH", kind, 0x0303, size) + bytes([0xA5]) * size for size in sizes)


def packet(src: Endpoint, dst: Endpoint, payload: bytes = b"", **more: Any) -> Packet:
    return Packet("eth0", TCP, src, dst, payload)._replace(**more)


def answers() -> tuple[Answer, ...]:
    made = []
    for number, port in enumerate((8080, 8080, 8080, 8080, 8081)):
        local = Endpoint(CLIENT_IP, 38830 + number)
        url = f"http://{SERVER_IP}:{port}/get"
        made.append(Answer(f"curl -s {url}", 200, local, Endpoint(SERVER_IP, port), BODY % local.port))
    return tuple(made)


def wire() -> tuple[Packet, ...]:
    hello = tls(300, kind=22)
    return (
        packet(OUTER, PEER, is_syn=True, sequence=999),
        packet(PEER, OUTER, is_synack=True, sequence=4999),
        packet(OUTER, PEER, hello, sequence=1000),
        packet(PEER, OUTER, tls(200, 90), sequence=5000),
        packet(OUTER, PEER, tls(100, 60), sequence=1000 + len(hello)),
        datagram_packet(),
    )


def datagram_packet() -> Packet:
    return packet(Endpoint(CLIENT_IP, 40000), Endpoint(SERVER_IP, 50000), UDP_MARKER, protocol=UDP)


def loopback(to: Endpoint, request: bytes = b"GET /get?marker-5f3a HTTP/1.1\r\n\r\n") -> tuple[Packet, ...]:
    found: list[Packet] = []
    for answer in answers():
        dst = to if to.port else answer.remote
        found.append(packet(answer.local, dst, interface="lo", is_syn=True, sequence=1))
        found.append(packet(answer.local, dst, request, interface="lo", sequence=2))
    return tuple(found)


def connections() -> tuple[ConnectionRow, ...]:
    return tuple(
        ConnectionRow(
            id=number,
            pod="demo/client",
            direction="outbound",
            state="closed",
            src=str(answer.local),
            dst=str(PEER),
            hbone_addr=str(answer.remote),
            src_identity=CLIENT_ID,
            dst_identity=SERVER_ID,
            tunnel=7,
            error="",
        )
        for number, answer in enumerate(answers(), 1)
    )


def called() -> tuple[Answer, ...]:
    """Answers by the service's address and names."""
    made = []
    for number, host in enumerate((VIP, "server", "server.demo", SERVICE.hostname)):
        local = Endpoint(CLIENT_IP, 39830 + number)
        url = f"http://{host}:80/get"
        name = host if host != VIP else ""
        made.append(Answer(f"curl -s {url}", 200, local, Endpoint(VIP, 80), BODY % local.port, "", name))
    return tuple(made)


def access_line(src: str, hbone_addr: str, direction: str, moved: tuple[int, int], **more: str) -> AccessLine:
    fields = {
        "src.addr": src,
        "src.workload": "client",
        "src.namespace": "demo",
        "src.identity": CLIENT_ID,
        "dst.addr": str(PEER),
        "dst.hbone_addr": hbone_addr,
        "dst.workload": "server",
        "dst.namespace": "demo",
        "dst.identity": SERVER_ID,
        "direction": direction,
        "bytes_sent": str(moved[0]),
        "bytes_recv": str(moved[1]),
    } | {name.replace("_", ".", 1): value for name, value in more.items()}
    return AccessLine("access\tconnection complete\t...", fields)


def access(direction: str) -> tuple[AccessLine, ...]:
    """The lines of one end: what the client's sent is what the server's received."""
    lines = []
    for number, answer in enumerate((*answers(), *called())):
        is_service = number >= len(answers())
        address = f"{SERVER_IP}:8080" if is_service else str(answer.remote)
        more = {"dst_service": SERVICE.hostname} if is_service else {}
        src = str(answer.local) if direction == "outbound" else str(OUTER)
        moved = (80 + number, 300) if direction == "outbound" else (300, 80 + number)
        lines.append(access_line(src, address, direction, moved, **more))
    return tuple(lines)


def tunnel(**changes: Any) -> TunnelRow:
    row = TunnelRow(
        7, "demo/client", "client", str(OUTER), str(PEER), CLIENT_ID, SERVER_ID, 0, 6, "TLSv1.3", "h2"
    )
    return row._replace(**changes)


def client_pod(**changes: Any) -> PodEvidence:
    netns = (4, 100)
    row = PodRow(
        "demo/client", "node-a", (CLIENT_IP,), "/run/netns/demo-client", netns, 17, CLIENT_ID, 1029, dns=True
    )
    made = _pod(row, CLIENT_IP, NODE_A, connections(), access("outbound"))
    return replace(made, **{"tunnels": (tunnel(),), "streams_before": {7: 1}} | changes)


def server_pod(**changes: Any) -> PodEvidence:
    netns = (4, 200)
    row = PodRow(
        "demo/server", "node-b", (SERVER_IP,), "/run/netns/demo-server", netns, 18, SERVER_ID, 1030, dns=True
    )
    other_end = tunnel(id=3, pod="demo/server", role="server", local=str(PEER), remote=str(OUTER))
    made = _pod(row, SERVER_IP, NODE_B, (), access("inbound"))
    return replace(made, **{"tunnels": (other_end,)} | changes)


def healthy(**changes: Any) -> Observation:
    seen = Observation(
        source=client_pod(),
        target=server_pod(),
        host=HOST,
        ports=PORTS,
        answers=answers(),
        marker=MARKER,
        datagram=Datagram(datagram_packet().src, datagram_packet().dst, UDP_MARKER, arrived=True),
        service=SERVICE,
        called=called(),
    )
    return replace(seen, **changes)


def _pod(
    row: PodRow,
    address: str,
    node_ip: str,
    rows: tuple[ConnectionRow, ...],
    lines: tuple[AccessLine, ...],
) -> PodEvidence:
    local = loopback(Endpoint(CLIENT_IP, 15001) if row.pod == "demo/client" else Endpoint("", 0))
    return PodEvidence(
        row=row,
        address=address,
        netns=row.netns,
        daemon=ProcessInfo(row.pid, "zproxy", (4, row.netns[1] + 1), ("cap_sys_admin", "cap_bpf")),
        node_addresses=(node_ip, "10.244.1.1"),
        listeners=tuple(listener(port, row.pid) for port in (15001, 15006, 15008, 15053)),
        udp=(listener(15053, row.pid, "udp"),),
        outside=(),
        links=(Link("lo", "loopback", True), Link("eth0", "veth", True)),
        rules=Rules(0, 0, 0),
        steering=("zp_pods[17]: name demo/client",),
        captured=Captured((*wire(), *local), 0),
        connections=rows,
        tunnels=(),
        streams_before={},
        identities=(row.identity,),
        log=f"/run/zproxy/lab/{row.node}.log",
        access=lines,
    )
