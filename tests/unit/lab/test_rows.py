"""Rows of the control socket, read into values."""

from typing import Any

import pytest

from tests.unit.lab.healthy import CLIENT_ID, SERVER_ID, client_pod, connections, tunnel
from zproxy.lab.rows import ConnectionRow, PodRow, TunnelRow


def pod_row() -> dict[str, Any]:
    return {
        "pod": "demo/client",
        "node": "node-a",
        "ips": ["::ffff:10.244.1.5", "fd00:10:244:1:0::5"],
        "netns": {"path": "/run/netns/demo-client", "dev": 4, "inode": 100, "cookie": 17},
        "identity": CLIENT_ID,
        "pid": 1029,
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
