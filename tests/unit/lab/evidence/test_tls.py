"""TCP payload put in order, and the TLS records in it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lab.healthy import OUTER, PEER, packet, tls
from zproxy.lab.evidence.packets import Packet
from zproxy.lab.evidence.tls import Flow, assemble, flows, records


def _cut(data: bytes, sizes: list[int], start: int) -> list[Packet]:
    found, at = [packet(OUTER, PEER, sequence=(start - 1) % 2**32, is_syn=True)], 0
    for size in sizes:
        found.append(packet(OUTER, PEER, data[at : at + size], sequence=(start + at) % 2**32))
        at += size
    return found


@given(st.binary(min_size=100, max_size=400), st.lists(st.integers(1, 50), min_size=20), st.randoms())
def test_any_order_and_repeats_give_the_same_bytes(
    data: bytes, sizes: list[int], order: random.Random
) -> None:
    data = data[: sum(sizes)]
    syn, *segments = _cut(data, sizes, start=2**32 - 20)
    shuffled = [*segments, *segments[:3]]
    order.shuffle(shuffled)
    assert b"".join(assemble([syn, *shuffled])) == data


def test_a_gap_begins_a_new_run() -> None:
    segments = _cut(b"aaaabbbbcccc", [4, 4, 4], 1000)
    assert assemble(segments[:2] + segments[3:]) == [b"aaaa", b"cccc"]


def test_directions_are_apart() -> None:
    there, back = packet(OUTER, PEER, b"a"), packet(PEER, OUTER, b"b")
    assert flows([there, back, there]) == {Flow(OUTER, PEER): [there, there], Flow(PEER, OUTER): [back]}


def test_whole_and_cut_off_records_are_counted() -> None:
    found = records(tls(300, kind=22) + tls(10, 20) + tls(500)[:50])
    assert found.kinds == {"handshake": 1, "application_data": 3}
    assert found.stray == 0


def test_plaintext_is_outside_of_records() -> None:
    text = b"GET /get HTTP/1.1\r\n\r\n"
    assert records(text + tls(10)).stray == len(text)
    assert records(tls(10) + text).stray == len(text) - 4  # fewer than five bytes may yet become a header
