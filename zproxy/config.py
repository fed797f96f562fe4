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
STATE_ROOT: Final = Path("/var/lib/zproxy")
"""STATE_ROOT/ca holds the embedded CA."""


class Deadlines(NamedTuple):
    """Longest waits, in seconds. A peer that misses one loses its connection, and nobody else notices."""

    connect_s: float = 10.0
    """TCP connect, ztunnel's constant."""
    handshake_s: float = 10.0
    """TLS handshake and HTTP/2 preface together, from the moment TCP is up."""
    reply_s: float = 15.0
    """CONNECT reply: the far side may itself wait connect_s for its app."""
    half_close_s: float = 3600.0
    """One direction ended and the other silent; long, because a one-sided stream is legal."""
    pool_idle_s: float = 300.0
    """A client tunnel without streams is closed after this, as ztunnel does."""


class Limits(NamedTuple):
    """Upper bounds; every buffer, queue and table in the data plane has one of these."""

    stream_window: int = 4 << 20
    """HTTP/2 receive window of a stream, ztunnel's value."""
    connection_window: int = 16 << 20
    """Of a tunnel; four streams' worth, so that one stalled stream cannot stop the others."""
    max_frame: int = 1 << 20
    """SETTINGS_MAX_FRAME_SIZE that we announce."""
    max_streams_server: int = 200
    """SETTINGS_MAX_CONCURRENT_STREAMS that our server announces, ztunnel's value."""
    max_streams_client: int = 100
    """Streams that our client puts on one tunnel before it opens a sibling."""
    header_list: int = 64 << 10
    """Largest decoded header list, in bytes as RFC 9113 6.5.2 counts them."""
    backlog: int = 1024
    """Of in-pod listeners; the kernel caps it at net.core.somaxconn."""
    backlog_bytes: int = 1 << 20
    """Ciphertext a tunnel holds for a socket that does not drain; beyond it the app sockets are not read."""
    pending_handshakes: int = 512
    """Accepted 15008 connections without a finished handshake, per pod."""
    tunnels_per_pod: int = 4096
    streams_waiting: int = 10_000
    """Connections of one pod that may wait for a tunnel to be dialled."""
    ended_connections: int = 512
    """Ended connections that `zproxy connections` still shows."""
    metric_series: int = 4096
    """Label sets of TCP metrics; those of idle peers make room, and what still finds none is `unknown`."""
