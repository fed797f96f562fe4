"""The exceptions that cross packages.

Each message is one sentence for an operator: what failed, where, the likely cause or the remedy.
`reason` is the short label used in the access log, in metrics and in `zproxy connections`.
"""


class ZproxyError(Exception):
    """Base of everything that is reported to an operator as a sentence instead of a traceback."""

    reason = "ERROR"


class ConfigError(ZproxyError):
    """Bad input from a file, an option or the environment; nothing was changed."""

    reason = "CONFIG"


class RequirementError(ZproxyError):
    """The machine lacks something (root, cgroup v2, a BPF feature); says what and how to get it."""

    reason = "REQUIREMENT"


class WorkerFailed(ZproxyError):
    """A data-plane worker ended or hangs; its pods are served by nobody, so the daemon must go."""

    reason = "WORKER"


class SteeringError(ZproxyError):
    """A BPF program, map, link or pin could not be made, found or trusted."""

    reason = "STEERING"


class EnrollError(ZproxyError):
    """A pod could not be enrolled or unenrolled; what was begun has been undone."""

    reason = "ENROLL"


class RuntimeFailed(ZproxyError):
    """The container runtime cannot be asked, or has not what it was asked for."""

    reason = "RUNTIME"


class EventsUnsupported(RuntimeFailed):
    """The container runtime has no stream of events: containerd before 1.7, CRI-O before 1.26."""


class NoDaemon(ZproxyError):
    """The node's daemon is not there, or does not answer in time; in a moment it may."""

    reason = "DAEMON"


class IdentityError(ZproxyError):
    """A certificate could not be issued, read or trusted."""

    reason = "IDENTITY"


class ConnectFailed(ZproxyError):
    """A TCP connection could not be opened in time."""

    reason = "CONNECT"


class NameFailed(ConnectFailed):
    """DNS knows no address of a workload that has no other than that."""

    reason = "DNS"


class ConnectTimedOut(ConnectFailed):
    """Port 15008 of a pod did not even refuse: something on the way drops what goes there."""

    reason = "NETWORK_POLICY"


class PeerRefused(ZproxyError):
    """A peer answered a CONNECT with something else than 200."""

    reason = "CONNECT"

    def __init__(self, status: int) -> None:
        super().__init__(f"http status: {status}")
        self.status = status
        if status == 401:
            self.reason = "PEER_DENY"


class TooMany(ZproxyError):
    """A bound of our own was reached; nobody else is at fault."""

    reason = "LIMIT"


class TlsFailed(ZproxyError):
    """A TLS handshake or record failed, or the peer is not who it should be; no application byte was sent."""

    reason = "TLS_FAILURE"


class TunnelClosed(ZproxyError):
    """The HBONE tunnel under a stream ended before the stream did."""

    reason = "TUNNEL_CLOSED"


class PeerBrokeProtocol(TunnelClosed):
    """The peer broke HTTP/2, a limit or a deadline of it; ztunnel's flag for any HTTP/2 failure."""

    reason = "H2_HANDSHAKE_FAILURE"
