"""Lines out of the data plane's way."""

import logging
import os
import socket
import threading

from zproxy.observe.log import QUEUE_LINES, LineWriter, quoted, set_up, timestamp


def test_a_stalled_sink_never_blocks_and_loses_are_counted() -> None:
    reader, sink = os.pipe()
    writer = LineWriter(sink)
    line = "x" * 100
    for _ in range(3 * QUEUE_LINES):
        writer.write(line)
    assert writer.dropped > 0
    written = drained(reader, sink, writer)
    assert written + writer.dropped == 3 * QUEUE_LINES


def test_lines_of_many_threads_are_all_written_or_counted() -> None:
    reader, sink = os.pipe()
    writer = LineWriter(sink)

    def write() -> None:
        for _ in range(QUEUE_LINES):
            writer.write("x" * 100)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert writer.dropped > 0
    written = drained(reader, sink, writer)
    assert written + writer.dropped == 4 * QUEUE_LINES


def drained(reader: int, sink: int, writer: LineWriter) -> int:
    """Read everything that the writer still writes; return the number of lines."""
    count = 0

    def read() -> None:
        nonlocal count
        while data := os.read(reader, 1 << 20):
            count += data.count(b"\n")

    thread = threading.Thread(target=read)
    thread.start()
    writer.close()
    os.close(sink)
    thread.join(10)
    os.close(reader)
    return count


def test_a_sink_that_is_gone_is_no_error() -> None:
    reader, sink = os.pipe()
    os.close(reader)
    writer = LineWriter(sink)
    writer.write("nobody reads this")
    writer.close()
    os.close(sink)
    assert writer.dropped == 1


def test_records_take_the_same_shape_as_access_lines() -> None:
    reader, sink = os.pipe()
    writer = LineWriter(sink)
    root = logging.getLogger("zproxy")
    before = root.handlers[:]
    try:
        set_up(writer, verbose=False)
        logging.getLogger("zproxy.test").warning("something %s", "odd")
        logging.getLogger("zproxy.test").debug("not shown")
    finally:
        writer.close()
        root.handlers[:] = before
    os.close(sink)
    text = os.read(reader, 1000).decode()
    os.close(reader)
    stamp, level, scope, message = text.rstrip("\n").split("\t")
    assert (level, scope, message) == ("warn", "zproxy.test", "something odd")
    assert stamp.endswith("Z")


def test_quotes_and_newlines_cannot_forge_a_field() -> None:
    assert quoted('a" b="c\n') == '"a\\" b=\\"c\\n"'


def test_a_stamp_is_rfc_3339_in_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert len(timestamp()) == len(timestamp(0))


def test_a_burst_is_written_in_few_pieces() -> None:
    reader, sink = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reader, sink:
        writer = LineWriter(sink.fileno())
        for number in range(100):
            writer.write(str(number))
        writer.close()
        sink.shutdown(socket.SHUT_WR)
        pieces = list(iter(lambda: reader.recv(1 << 16), b""))
    assert b"".join(pieces).split() == [str(number).encode() for number in range(100)]
    assert len(pieces) < 10
