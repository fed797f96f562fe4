"""Limits, deadlines and paths: numbers that an operator can observe, each with its reason.

Ports are the mesh's and stand in zproxy.model.ports.
"""

from pathlib import Path
from typing import Final, NamedTuple

SOURCE_MARK: Final = 0x111
"""SO_MARK on the leg to the app whose source is the client's address; routes the app's replies back over lo.
The value, table and priority are Istio's, so that one pod never carries two different schemes."""
SOURCE_MARK_MASK: Final = 0xFFF
SOURCE_TABLE: Final = 100
SOURCE_RULE_PRIORITY: Final = 32764

BPFFS: Final = Path("/sys/fs/bpf")
PIN_ROOT: Final = BPFFS / "zproxy"
"""Pins of one daemon live in PIN_ROOT/<node>; nothing outside it is ever touched."""
RUN_ROOT: Final = Path("/run/zproxy")
"""RUN_ROOT/<node>/ holds the control socket, the lock and the record of enrolled pods."""
ZDS_SOCKET: Final = "/var/run/ztunnel/ztunnel.sock"
"""Where istio-cni listens for who serves the node's pods."""
CGROUP_ROOT: Final = "cgroup-root"
"""The file in RUN_ROOT/<node>/ that holds --cgroup-root, where it was given."""
STATE_ROOT: Final = Path("/var/lib/zproxy")
"""STATE_ROOT/ca holds the embedded CA."""

MAX_BUSY_POLL_US: Final = 1000
"""Longer than any round trip inside a data centre; beyond it a core burns for nothing."""
MAX_WORKERS: Final = 64
"""Threads of one process share an interpreter; long before this many they wait for each other."""


class Deadlines(NamedTuple):
    """Longest waits, in seconds. A peer that misses one loses its connection, and nobody else notices."""

    name_s: float = 5.0
    """DNS, for a workload that is known by its host name only."""
    dns_s: float = 4.0
    """A resolver's answer; below the 5 s after which resolvers of apps ask again (resolv.conf(5))."""
    dns_idle_s: float = 5.0
    """A query on a TCP connection of a pod's resolver, ztunnel's value; one that began counts as none."""
    connect_s: float = 10.0
    """TCP connect, ztunnel's constant."""
    handshake_s: float = 10.0
    """TLS handshake and HTTP/2 preface together, from the moment TCP is up, until the peer's SETTINGS."""
    settings_ack_s: float = 10.0
    """The peer's word that it keeps our SETTINGS (RFC 9113 6.5.3), from the end of the TLS handshake on."""
    frame_s: float = 30.0
    """A frame or header block that began and does not go on; DATA may take as long as it likes."""
    reply_s: float = 15.0
    """CONNECT reply: the far side may itself wait connect_s for its app."""
    half_close_s: float = 3600.0
    """One direction ended and the other silent; long, because a one-sided stream is legal."""
    pool_idle_s: float = 300.0
    """A client tunnel without streams is closed after this, as ztunnel does."""
    record_s: float = 5.0
    """The mesh's record of a pod that was enrolled before it; its connections wait, as ztunnel's do."""
    idle_s: float = 0.0
    """A connection that moves no byte for this long is ended, twice as long at the latest; 0 is never."""


class Limits(NamedTuple):
    """Upper bounds; every buffer, queue and table in the data plane has one of these."""

    stream_window: int = 4 << 20
    """HTTP/2 receive window of a stream, ztunnel's value. Below 65,535 it binds a peer from its ACK on."""
    connection_window: int = 16 << 20
    """Of a tunnel; four streams' worth, so that one stalled stream cannot stop the others."""
    max_frame: int = 1 << 20
    """SETTINGS_MAX_FRAME_SIZE that we announce."""
    max_streams_server: int = 200
    """SETTINGS_MAX_CONCURRENT_STREAMS that our server announces, ztunnel's value."""
    max_streams_unaware: int = 1024
    """Streams that a client may open before it has acknowledged that limit (RFC 9113 6.5.3). What waited for
    a tunnel comes in one burst, and Envoy, whose default this is, does not try a refused stream again."""
    max_streams_client: int = 100
    """Streams that our client puts on one tunnel before it opens a sibling."""
    header_list: int = 64 << 10
    """Largest decoded header list, in bytes as RFC 9113 6.5.2 counts them; also of a block as it arrives."""
    continuations: int = 16
    """CONTINUATION frames of one header block; honest peers need none."""
    chatter: int = 1000
    """PING, SETTINGS, empty DATA and the like that a peer may save up; each read of its socket allows one."""
    wasted_streams: int = 1000
    """Streams broken off before their answer, refused, or ended by their own fault, that may come at once."""
    wasted_streams_per_s: int = 200
    """How many more of these each second allows."""
    backlog: int = 1024
    """Of in-pod listeners; the kernel caps it at net.core.somaxconn."""
    backlog_bytes: int = 1 << 20
    """Ciphertext a tunnel holds for a socket that does not drain; beyond it the app sockets are not read."""
    pending_handshakes: int = 512
    """Accepted 15008 connections without a finished handshake, per pod."""
    pending_handshakes_per_peer: int = 128
    """Of these, from one source address: a quarter, so that one peer never keeps the others out."""
    tunnels_per_pod: int = 4096
    """Accepted on 15008."""
    tunnels_per_peer: int = 1024
    """Of these, from one source address; with 100 streams each, a hundred thousand connections."""
    dns_queries: int = 256
    """Queries of one pod that may wait for resolvers; each takes a descriptor, for its own source port."""
    dns_clients: int = 64
    """TCP connections of a pod's resolvers."""
    dns_pipelined: int = 16
    """Queries on one of them that are not answered yet (RFC 7766 6.2.1.1)."""
    dns_backlog_bytes: int = 256 << 10
    """Answers that one of them is slow to take."""
    streams_waiting: int = 10_000
    """Connections of one pod that may wait for a tunnel to be dialled."""
    held_connections: int = 1024
    """Connections to or from one pod, by listener, that may wait for the mesh to know it."""
    ended_connections: int = 512
    """Ended connections that `zproxy connections` still shows."""
    metric_series: int = 4096
    """Label sets of a worker's metrics; those of idle peers make room, what still finds none is `unknown`."""
