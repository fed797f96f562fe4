"""Who may talk to whom when one end is Envoy: a wrong certificate gets no byte, and both ends say why."""

import contextlib
from pathlib import Path

import pytest

from tests.support.envoy import Envoy
from tests.support.envoy_config import Tunnel, client, server
from tests.support.interop import CLIENT, HBONE, SERVER, Way
from tests.support.nodes import App, exchange, peer_echo
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root

BILLING = SERVER._replace(service_account="billing")


def refused_outward(outward: Way, port: int, envoy: Envoy) -> str:
    """Connect in vain to the app behind Envoy's server; return zproxy's line."""
    app = App(outward.nodes.server, port, peer_echo)
    to = Endpoint(outward.address(), port)
    with pytest.raises(ConnectionError):
        exchange(outward.nodes.dial(port), b"the secret")
    line = outward.node.access(f"dst.hbone_addr={to} ")[0]
    row = next(row for row in outward.node.client.call("connections") if row["hbone_addr"] == str(to))
    app.close()
    assert "\terror\taccess\t" in line
    assert "bytes_sent=0 bytes_recv=0" in line
    assert row["state"] == "failed"
    assert row["error"] in line.replace("\\", "")
    assert not [entry for entry in envoy.entries() if entry["kind"] == "request"]
    return line


def refused_inward(inward: Way, port: int, envoy: Envoy) -> tuple[str, str]:
    """Connect in vain through Envoy's client; return zproxy's line and Envoy's reason."""
    app = App(inward.nodes.server, port, peer_echo)
    before = len(inward.node.lines("\taccess\t"))
    with contextlib.suppress(ConnectionError):  # Envoy resets its app, or ends it
        assert exchange(inward.nodes.dial(port, "127.0.0.1"), b"the secret") == b""
    entry = envoy.access(kind="tunnel")[0]
    line = inward.node.access("", before + 1)[before]
    app.close()
    assert f"\twarn\taccess\tconnection failed\tsrc.addr={inward.nodes.client.ip4}:" in line
    assert f" dst.addr={inward.address()}:{HBONE} " in line
    assert entry["sent"] == 0
    return line, entry["failure"]


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("another service account", f"presented {BILLING}; expected {SERVER}"),
        ("a foreign CA", "unknown"),
    ],
)
def test_zproxy_refuses_an_envoy_that_is_somebody_else(
    outward: Way, port: int, tmp_path: Path, case: str, sentence: str
) -> None:
    keys = outward.keys(BILLING) if case != "a foreign CA" else outward.keys(ca=tmp_path / "foreign")
    with Envoy(outward.envoy_pod, server(keys)) as envoy:
        assert sentence in refused_outward(outward, port, envoy)


def test_envoys_server_refuses_a_zproxy_whose_identity_it_does_not_expect(outward: Way, port: int) -> None:
    with Envoy(outward.envoy_pod, server(outward.keys(), peers=str(BILLING))) as envoy:
        line = refused_outward(outward, port, envoy)
        entry = envoy.access(kind="connection")[0]
        assert envoy.stat("listener.[__]_15008.ssl.fail_verify_san") == 1
    assert "certificate" in line
    assert "SAN_matcher" in entry["failure"]


def test_envoys_client_refuses_a_zproxy_that_it_does_not_expect(inward: Way, port: int) -> None:
    tunnel = inward.tunnel(port)._replace(server=str(BILLING))
    with Envoy(inward.envoy_pod, client(inward.keys(), [tunnel])) as envoy:
        line, failure = refused_inward(inward, port, envoy)
        assert envoy.stat("cluster.hbone-0.ssl.fail_verify_san") == 1
    assert "certificate" in line
    assert "SAN_matcher" in failure


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("no certificate", "certificate"),
        ("a foreign CA", "unknown"),
        ("another trust domain", "is of trust domain other.local; this pod accepts cluster.local"),
    ],
)
def test_zproxy_refuses_an_envoy_that_is_not_of_the_mesh(
    inward: Way, port: int, tmp_path: Path, case: str, sentence: str
) -> None:
    if case == "no certificate":
        keys = None
    elif case == "a foreign CA":
        keys = inward.keys(ca=tmp_path / "foreign")
    else:
        keys = inward.keys(CLIENT._replace(trust_domain="other.local"))
    with Envoy(inward.envoy_pod, client(keys, [inward.tunnel(port)])) as envoy:
        line, _ = refused_inward(inward, port, envoy)
    assert sentence in line


def test_a_closed_app_port_behind_envoy_is_a_503(outward: Way, port: int) -> None:
    with outward.link(port) as link:
        with pytest.raises(ConnectionError):
            exchange(link.dial(), b"?")
        line, entry = link.lines()[0], link.entries()[0]
    assert (entry["code"], entry["peer"]) == (503, str(CLIENT))
    assert 'error="http status: 503"' in line


@pytest.mark.parametrize(
    ("authority", "status", "sentence"),
    [
        ("{other}:{port}", 400, "ip mismatch: {server} != {other}"),
        ("nonsense", 400, "no valid authority"),
        ("no.such.service:80", 503, "no service or workload for hostname"),
        ("{server}:{port}", 503, "Connection refused"),
        ("{server}:15001", 503, "attempted recursive call to ourselves"),
        ("{server}:15006", 503, "attempted recursive call to ourselves"),
        ("{server}:15008", 503, "attempted recursive call to ourselves"),
        ("{unknown}:{port}", 401, "workload not found: the mesh knows nobody at {unknown}"),
    ],
)
def test_envoy_hears_why_a_connect_is_refused(
    inward: Way, port: int, authority: str, status: int, sentence: str
) -> None:
    """Its app is reset, for there is nothing else that TCP could say."""
    unknown = unknown_address(inward)
    names = {"server": inward.address(), "other": inward.nodes.client.ip4, "unknown": unknown, "port": port}
    at = unknown if "{unknown}" in authority else inward.address()
    tunnel = Tunnel(port, authority.format(**names), Endpoint(at, HBONE), str(SERVER))
    with Envoy(inward.envoy_pod, client(inward.keys(), [tunnel])) as envoy:
        with pytest.raises(ConnectionError):
            exchange(inward.nodes.dial(port, "127.0.0.1"), b"?")
        entry = envoy.access(kind="tunnel", authority=tunnel.authority)[0]
        assert envoy.stat("cluster.hbone-0.upstream_cx_active") == 1, "the tunnel outlives a refused stream"
        source = next(t["remote"] for t in inward.node.client.call("tunnels"))
        line = next(
            line for line in inward.node.access(f"src.addr={source} ") if sentence.format(**names) in line
        )
    assert entry["failure"] == f"tunnel_response:{status}"
    assert {"key": ":status", "value": str(status)} in entry["answer"]["headers"]
    assert 'direction="inbound"' in line


def unknown_address(inward: Way) -> str:
    """Return an address of the server pod that its mesh record does not have."""
    address = inward.address().rpartition(".")[0] + ".99"
    inward.nodes.server.execute("ip", "address", "replace", f"{address}/24", "dev", "eth0")
    return address
