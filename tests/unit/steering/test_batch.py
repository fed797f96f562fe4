"""All elements with few system calls: each once, however the map is filled, and while it changes."""

import errno
import struct
from collections.abc import Iterator

import pytest

from tests.support.bpf_maps import Shape, made
from zproxy.steering import batch, syscall
from zproxy.steering.info import MapType

pytestmark = pytest.mark.root

ENTRIES = 5000


def key(number: int) -> bytes:
    return struct.pack("=I", number)


def value(number: int) -> bytes:
    return struct.pack("=Q", number * 3)


def fill(fd: int, count: int) -> dict[bytes, bytes]:
    for number in range(count):
        syscall.map_update(fd, key(number), value(number))
    return {key(number): value(number) for number in range(count)}


@pytest.fixture(params=[MapType.HASH, MapType.LRU_HASH], ids=["hash", "lru"])
def table(request: pytest.FixtureRequest) -> Iterator[int]:
    with made(Shape(request.param, 4, 8, 4 * ENTRIES, "zpt_batch")) as fd:
        yield fd


@pytest.mark.parametrize("count", [0, 1, ENTRIES])
def test_every_element_comes_once(table: int, count: int) -> None:
    wanted = fill(table, count)
    found = list(batch.elements(table, 4, 8))
    assert len(found) == count
    assert dict(found) == wanted


def test_a_bucket_with_more_elements_than_a_call_takes_is_brought_whole(
    table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CAPACITY", 1)
    wanted = fill(table, ENTRIES)
    found = list(batch.elements(table, 4, 8))
    assert len(found) == ENTRIES
    assert dict(found) == wanted


def test_elements_may_go_while_one_walks(table: int) -> None:
    wanted = fill(table, ENTRIES)
    found = {}
    for name, content in batch.elements(table, 4, 8):
        found[name] = content
        assert syscall.map_delete(table, name)
    assert found == wanted
    assert list(batch.elements(table, 4, 8)) == []


def test_what_is_no_map_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        list(batch.elements(1 << 20, 4, 8))
    assert caught.value.errno == errno.EBADF
