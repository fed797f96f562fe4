"""All elements of a map at once."""

import struct

import pytest

from tests.support.bpf_maps import Shape, made
from zproxy.steering import batch, syscall
from zproxy.steering.info import MapType

pytestmark = pytest.mark.root

STACK = 23
KINDS = (MapType.HASH, MapType.LRU_HASH)


def fill(fd: int, size: int) -> dict[bytes, bytes]:
    wanted = {struct.pack("=Q", number): struct.pack("=I", number * 7) for number in range(size)}
    for key, value in wanted.items():
        syscall.map_update(fd, key, value)
    return wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_every_element_is_shown_once(kind: MapType, size: int) -> None:
    with made(Shape(kind, 8, 4, 4096, "zpt_batch")) as fd:
        wanted = fill(fd, size)
        found = list(batch.elements(fd, 8, 4, at_once=64))
        assert dict(found) == wanted
        assert len(found) == size
        assert batch.count(fd, 8, 4) == size


def test_elements_may_be_deleted_on_the_way() -> None:
    with made(Shape(MapType.HASH, 8, 4, 4096, "zpt_batch")) as fd:
        wanted = fill(fd, 1000)
        seen = set()
        for key, _ in batch.elements(fd, 8, 4, at_once=64):
            seen.add(key)
            syscall.map_delete(fd, key)
        assert seen == set(wanted)
        assert batch.count(fd, 8, 4) == 0


def test_a_map_without_batches_is_an_error() -> None:
    with made(Shape(STACK, 0, 4, 4, "zpt_stack")) as fd, pytest.raises(OSError, match="524"):  # ENOTSUPP
        list(batch.elements(fd, 4, 4))
