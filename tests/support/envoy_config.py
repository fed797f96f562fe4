"""Envoy configurations as plain dicts: HBONE client, HBONE server, plain TCP.

Each function returns a whole bootstrap except for `admin`, which `tests.support.envoy.Envoy` adds. A test may
change it before use. Listeners are dual stack; buffers, windows and limits are such that Envoy is no slower
and no stricter than it has to be.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.credentials import Credentials

Config = dict[str, Any]

MESH = "spiffe://cluster.local/"
"""What a server's peers begin with when any identity of the mesh will do."""
BUFFER = 1 << 20
ACCESS_LOG = "@ACCESS_LOG@"
"""Stands for the path of the access log, which only the running Envoy knows."""

_NO_LIMIT = {
    "thresholds": [{f"max_{what}": 1_000_000 for what in ("connections", "pending_requests", "requests")}]
}
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


class Keys(NamedTuple):
    """PEM files of one identity, and of the roots that it trusts."""

    chain: Path
    key: Path
    roots: Path


class Tunnel(NamedTuple):
    """What connects to port `listen` of an HBONE client goes to `authority` through the tunnel to `hbone`."""

    listen: int
    authority: str
    """As in CONNECT: `ip:port`, `[v6]:port` or `host:port`."""
    hbone: Endpoint
    server: str
    """The one SPIFFE identity that the peer's certificate must have."""


Peer = tuple[Endpoint, str]


def save(credentials: Credentials, directory: Path, name: str) -> Keys:
    """Write credentials to PEM files NAME-*.pem in `directory`."""
    keys = Keys(*(directory / f"{name}-{part}.pem" for part in Keys._fields))
    parts = (credentials.certificate_chain, credentials.private_key, credentials.roots)
    for path, part in zip(keys, parts, strict=True):
        path.touch(0o600)
        path.write_bytes(part)
    return keys


def client(keys: Keys | None, tunnels: Iterable[Tunnel], *, keepalive_s: float | None = None) -> Config:
    """Listen on plain TCP ports and send each connection as a CONNECT stream.

    Tunnels to the same peer share a cluster, "hbone-N", and so HTTP/2 connections. Without `keys` no
    certificate is presented, and any server is accepted. `keepalive_s`: a PING after every so many seconds,
    answered within as many.
    """
    tunnels = tuple(tunnels)
    names: dict[Peer, str] = {}
    for tunnel in tunnels:
        names.setdefault((tunnel.hbone, tunnel.server), f"hbone-{len(names)}")
    listeners = [_listener(f"tunnel-{to.listen}", to.listen, [_tunneling(to, names)]) for to in tunnels]
    return _static(listeners, [_hbone_cluster(keys, peer, name, keepalive_s) for peer, name in names.items()])


def server(
    keys: Keys,
    app: Endpoint | None = None,
    *,
    peers: str = MESH,
    listen: int = 15008,
    keepalive_s: float | None = None,
) -> Config:
    """Terminate HBONE and connect to `app`, or without it to what each CONNECT names.

    `peers`: the identity that clients must have, or a prefix of it that ends in "/".
    """
    listener = _listener("hbone", listen, [_connect_manager(keepalive_s)])
    listener["filter_chains"][0]["transport_socket"] = _tls(keys, [peers], is_server=True)
    listener["access_log"] = [_access_log({"kind": "connection"} | _CONNECTION)]
    return _static([listener], [_app_cluster(app)])


def passthrough(listen: int, to: Endpoint) -> Config:
    """Relay plain TCP."""
    relay = _tcp_proxy("app", {"kind": "tcp", "authority": str(to)} | _TCP)
    return _static([_listener("plain", listen, [relay])], [_app_cluster(to)])


def quiet(config: Config) -> Config:
    """Return the same without any access log, for measurements."""

    def strip(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: strip(value) for key, value in part.items() if key != "access_log"}
        return [strip(item) for item in part] if isinstance(part, list) else part

    stripped: Config = strip(config)
    return stripped


_TCP = {
    "flags": "%RESPONSE_FLAGS%",
    "peer": "%UPSTREAM_PEER_URI_SAN%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "answer": "%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:TYPED)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}
_CONNECTION = {
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "source": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
}
_REQUEST = _CONNECTION | {
    "authority": "%REQ(:AUTHORITY)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "baggage": "%REQ(BAGGAGE)%",
    "forwarded": "%REQ(FORWARDED)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}


def _static(listeners: list[Config], clusters: list[Config]) -> Config:
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _typed(kind: str, **fields: Any) -> Config:
    return {"@type": f"{_EXTENSIONS}.{kind}", **fields}


def _listener(name: str, port: int, filters: list[Config]) -> Config:
    return {
        "name": name,
        "address": {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}},
        "per_connection_buffer_limit_bytes": BUFFER,
        "filter_chains": [{"filters": filters}],
    }


def _access_log(fields: dict[str, str]) -> Config:
    log = _typed("access_loggers.file.v3.FileAccessLog", path=ACCESS_LOG, log_format={"json_format": fields})
    return {"name": "envoy.access_loggers.file", "typed_config": log}


def _tcp_proxy(cluster: str, log: dict[str, str], **fields: Any) -> Config:
    proxy = _typed(
        "filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix="tcp",
        cluster=cluster,
        idle_timeout="0s",
        access_log=[_access_log(log)],
        **fields,
    )
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


def _tunneling(tunnel: Tunnel, clusters: Mapping[Peer, str]) -> Config:
    return _tcp_proxy(
        clusters[tunnel.hbone, tunnel.server],
        {"kind": "tunnel", "authority": tunnel.authority} | _TCP,
        tunneling_config={"hostname": tunnel.authority, "propagate_response_headers": True},
    )


def _cluster(name: str, to: Endpoint) -> Config:
    address = {"socket_address": {"address": to.ip, "port_value": to.port}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": BUFFER,
        "circuit_breakers": _NO_LIMIT,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _hbone_cluster(keys: Keys | None, peer: Peer, name: str, keepalive_s: float | None) -> Config:
    hbone, identity = peer
    protocol = _typed(
        "upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": _http2(keepalive_s)},
    )
    return _cluster(name, hbone) | {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol
        },
        "transport_socket": _tls(keys, [identity], is_server=False),
    }


def _app_cluster(app: Endpoint | None) -> Config:
    if app is not None:
        return _cluster("app", app)
    return {
        "name": "app",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": ":authority"},
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": BUFFER,
        "circuit_breakers": _NO_LIMIT,
    }


def _http2(keepalive_s: float | None) -> Config:
    options: Config = {
        "initial_stream_window_size": 4 << 20,
        "initial_connection_window_size": 16 << 20,
        "max_concurrent_streams": (1 << 31) - 1,
    }
    if keepalive_s is not None:
        options["connection_keepalive"] = {"interval": f"{keepalive_s}s", "timeout": f"{keepalive_s}s"}
    return options


def _tls(keys: Keys | None, identities: Sequence[str], *, is_server: bool) -> Config:
    common: Config = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
    }
    if keys is not None:
        files = {
            "certificate_chain": {"filename": str(keys.chain)},
            "private_key": {"filename": str(keys.key)},
        }
        common["tls_certificates"] = [files]
        names = [{("prefix" if name.endswith("/") else "exact"): name} for name in identities]
        common["validation_context"] = {
            "trusted_ca": {"filename": str(keys.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": name} for name in names],
        }
    side = "Downstream" if is_server else "Upstream"
    context = _typed(f"transport_sockets.tls.v3.{side}TlsContext", common_tls_context=common)
    if is_server:
        context["require_client_certificate"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _connect_manager(keepalive_s: float | None) -> Config:
    router = _typed("filters.http.router.v3.Router", suppress_envoy_headers=True)
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "app",
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    }
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="hbone",
        codec_type="HTTP2",
        stream_idle_timeout="0s",
        http2_protocol_options=_http2(keepalive_s) | {"allow_connect": True},
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        http_filters=[{"name": "envoy.filters.http.router", "typed_config": router}],
        route_config={"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
        access_log=[_access_log({"kind": "request"} | _REQUEST)],
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
