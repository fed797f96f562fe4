"""The access log: one line per connection, with ztunnel's fields in ztunnel's order."""

from zproxy.observe.connections import Connection
from zproxy.observe.log import LineWriter, quoted, timestamp


class AccessLog:
    """Writes what `Connections` reports as ended."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def ended(self, connection: Connection, now: float) -> None:
        """Write the line of a connection that ended at `now` (monotonic)."""
        self._writer.write(f"{timestamp()}\t{line(connection, now)}")


def line(connection: Connection, now: float) -> str:
    """Return level, scope, message and fields.

    A connection refused before its peers were known ("early deny") has addresses and the error only.
    """
    error = f" error={quoted(connection.error)}" if connection.error else ""
    if connection.peers is None:
        return (
            f"warn\taccess\tconnection failed\tsrc.addr={connection.src} dst.addr={connection.dst} "
            f'direction="{connection.direction.value}"{error}'
        )
    hbone_addr = f" dst.hbone_addr={connection.hbone_addr}" if connection.hbone_addr else ""
    milliseconds = int((now - connection.opened) * 1000)
    return (
        f"{'error' if connection.error else 'info'}\taccess\tconnection complete\t"
        f"src.addr={connection.src}{connection.peers.source_text} "
        f"dst.addr={connection.dst}{hbone_addr}{connection.peers.destination_text} "
        f'direction="{connection.direction.value}" bytes_sent={connection.bytes_sent} '
        f'bytes_recv={connection.bytes_recv} duration="{milliseconds}ms"{error}'
    )
