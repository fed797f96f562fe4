"""Rows of the control socket, read into values."""

from typing import Any

import pytest

from tests.unit.lab.healthy import CLIENT_ID, SERVER_ID, SERVICE, client_pod, connections, tunnel
from zproxy.lab.rows import ConnectionRow, PodRow, ServiceRow, TunnelRow


def pod_row() -> dict[str, Any]:
    return {
        "pod": "demo/client",
        "node": "node-a",
        "ips": ["::ffff:10.244.1.5", "fd00:10:244:1:0::5"],
        "netns": {"path": "/run/netns/demo-client", "dev": 4, "inode": 100, "cookie": 17},
        "identity": CLIENT_ID,
        "pid": 1029,
        "dns": True,
        "state": "enrolled",
    }


def test_a_pod_is_read_with_canonical_addresses() -> None:
    read = PodRow.of(pod_row())
    assert read.ips == ("10.244.1.5", "fd00:10:244:1::5")
    assert read._replace(ips=("10.244.1.5",)) == client_pod().row


def test_connections_and_tunnels_ignore_what_they_do_not_know() -> None:
    assert ConnectionRow.of(connections()[0]._asdict() | {"bytes_sent": 1}) == connections()[0]
    assert TunnelRow.of(tunnel()._asdict() | {"age_s": 1.5}) == tunnel()


def test_a_missing_key_is_not_papered_over() -> None:
    row = pod_row()
    del row["pid"]
    with pytest.raises(KeyError, match="pid"):
        PodRow.of(row)


def test_the_pool_key_has_no_app_port() -> None:
    assert tunnel().pool_key == f"{{{CLIENT_ID}, {SERVER_ID}, 10.244.1.5, 10.244.2.5:15008}}"


def service_rows(endpoints: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    service = {
        "namespace": "demo",
        "name": "server",
        "hostname": "server.demo.svc.cluster.local",
        "vip": ["::ffff:10.96.0.80", "10.97.0.0/16"],
        "endpoints": endpoints,
        "ports": ["80:8080"],
    }
    other = service | {"name": "other", "hostname": "other.demo.svc.cluster.local"}
    workload = {"namespace": "demo", "name": "server", "services": ["demo/server.demo.svc.cluster.local"]}
    return [other, service], [{"namespace": "demo", "name": "client", "services": []}, workload]


def test_the_service_before_a_pod_is_found() -> None:
    assert ServiceRow.before("demo/server", *service_rows("1/1")) == SERVICE


@pytest.mark.parametrize(("pod", "endpoints"), [("demo/client", "1/1"), ("demo/server", "2/2")])
def test_of_several_endpoints_none_is_expected_to_answer(pod: str, endpoints: str) -> None:
    assert ServiceRow.before(pod, *service_rows(endpoints)) is None


def test_the_short_name_is_for_pods_of_the_same_namespace() -> None:
    assert SERVICE.names("demo") == ("server", "server.demo", SERVICE.hostname)
    assert SERVICE.names("shop") == ("server.demo", SERVICE.hostname)
