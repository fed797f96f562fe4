"""What one direction of a captured TCP connection carries: its bytes in order, and the TLS records in them.

Records are found by their headers alone (RFC 8446 5.1: type, version 3.x, length); nothing is decrypted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from zproxy.lab.evidence.packets import TCP, Packet
from zproxy.model.addr import Endpoint

RECORD_TYPES: Final = {20: "change_cipher_spec", 21: "alert", 22: "handshake", 23: "application_data"}
_HEADER: Final = 5
_MAX_RECORD: Final = (1 << 14) + 256
"""RFC 8446 5.2: the longest protected record."""


class Flow(NamedTuple):
    """One direction of a TCP connection: from, to."""

    src: Endpoint
    dst: Endpoint


class Records(NamedTuple):
    """TLS records of one direction: how many of each type, and how many bytes belong to none."""

    kinds: Counter[str]
    stray: int


def flows(packets: Iterable[Packet]) -> dict[Flow, list[Packet]]:
    """Group the TCP packets by direction, in the order of capture."""
    found: dict[Flow, list[Packet]] = {}
    for packet in packets:
        if packet.protocol == TCP:
            found.setdefault(Flow(packet.src, packet.dst), []).append(packet)
    return found


def assemble(packets: Iterable[Packet]) -> list[bytes]:
    """Return the payload of one direction in sequence order, as runs without a gap; repeats count once."""
    runs: list[bytearray] = []
    end = -1
    for at, payload in sorted(_positions(packets), key=lambda item: item[0]):
        if at > end or not runs:
            runs.append(bytearray(payload))
            end = at + len(payload)
        elif at + len(payload) > end:
            runs[-1] += payload[end - at :]
            end = at + len(payload)
    return [bytes(run) for run in runs]


def records(run: bytes) -> Records:
    """Walk the TLS records of one run of bytes, from the first that looks like one to the last whole one."""
    count: Counter[str] = Counter()
    at = stray = 0
    while at + _HEADER <= len(run):
        kind, major, size = run[at], run[at + 1], int.from_bytes(run[at + 3 : at + 5], "big")
        if kind in RECORD_TYPES and major == 3 and size <= _MAX_RECORD:
            count[RECORD_TYPES[kind]] += 1
            at += _HEADER + size
        else:
            stray += 1
            at += 1
    return Records(count, stray)


def _positions(packets: Iterable[Packet]) -> Iterator[tuple[int, bytes]]:
    """Yield (offset from the first sequence number seen, payload); offsets survive the wrap at 2**32."""
    base: int | None = None
    for packet in packets:
        if base is None:
            base = packet.sequence
        if packet.payload:
            offset = (packet.sequence - base + (1 << 31)) % (1 << 32) - (1 << 31)
            yield offset, packet.payload
