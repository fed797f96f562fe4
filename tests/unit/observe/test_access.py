"""The access log line, field by field."""

import pytest

from tests.support.mesh import workload
from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.observe.access import AccessLog, line
from zproxy.observe.connections import Connection, Peers
from zproxy.observe.log import LineWriter
from zproxy.observe.series import Party


def outbound(*, is_mtls: bool = True) -> Connection:
    client = workload("demo/client", "10.0.1.5")
    web = workload(
        "demo/web-1", "10.0.2.7", service_account="web", services=("demo/web.demo.svc.cluster.local",)
    )
    connection = Connection(
        7, "demo/client", Direction.OUTBOUND, Endpoint("10.0.1.5", 41000), Endpoint("10.0.2.7", 15008)
    )
    connection.hbone_addr = "10.0.2.7:8080" if is_mtls else ""
    source, destination = (client.identity, web.identity) if is_mtls else (None, None)
    connection.peers = Peers(Party(Direction.OUTBOUND, client, web, source, destination, web.services[0]))
    connection.opened = 100.0
    connection.bytes_sent, connection.bytes_recv = 11, 22
    return connection


def test_a_complete_line_has_ztunnels_fields_in_ztunnels_order() -> None:
    assert line(outbound(), now=100.0139) == (
        "info\taccess\tconnection complete\t"
        'src.addr=10.0.1.5:41000 src.workload="client" src.namespace="demo" '
        'src.identity="spiffe://cluster.local/ns/demo/sa/client" src.cluster="Kubernetes" '
        "dst.addr=10.0.2.7:15008 dst.hbone_addr=10.0.2.7:8080 "
        'dst.service="web.demo.svc.cluster.local" dst.workload="web-1" dst.namespace="demo" '
        'dst.identity="spiffe://cluster.local/ns/demo/sa/web" dst.cluster="Kubernetes" '
        'direction="outbound" bytes_sent=11 bytes_recv=22 duration="13ms"'
    )


def test_plain_hops_have_no_identity_and_no_hbone_address() -> None:
    text = line(outbound(is_mtls=False), now=101.0)
    assert "identity" not in text
    assert "hbone_addr" not in text
    assert 'dst.workload="web-1"' in text


def test_an_error_raises_the_level_and_comes_last() -> None:
    connection = outbound()
    connection.error = 'peer said "no"\nand hung up'
    text = line(connection, now=100.0)
    assert text.startswith("error\taccess\tconnection complete\t")
    assert text.endswith(' duration="0ms" error="peer said \\"no\\"\\nand hung up"')
    assert "\n" not in text


def test_an_early_deny_knows_addresses_and_the_error_only() -> None:
    connection = Connection(
        1, "demo/server", Direction.INBOUND, Endpoint("fd00::1", 5), Endpoint("fd00::2", 15008)
    )
    connection.error = "no certificate"
    assert line(connection, now=1.0) == (
        "warn\taccess\tconnection failed\t"
        'src.addr=[fd00::1]:5 dst.addr=[fd00::2]:15008 direction="inbound" error="no certificate"'
    )


@pytest.mark.parametrize("count", [1, 3])
def test_lines_are_stamped_and_written(capfd: pytest.CaptureFixture[str], count: int) -> None:
    writer = LineWriter(1)
    for _ in range(count):
        AccessLog(writer).ended(outbound(), now=100.0)
    writer.close()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == count
    stamp, rest = lines[0].split("\t", 1)
    assert stamp.endswith("Z")
    assert len(stamp) == len("2026-08-20T10:11:12.345678Z")
    assert rest.startswith("info\taccess\t")
