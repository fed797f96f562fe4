"""`zproxy bpf map` against the installed bpftool over every map of ours: empty, with one element, with many.

The maps are copies of the pinned ones, types and all, so that what is in them steers nobody.
"""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, Types, made, map_id
from tests.support.bpftool import VIEWS, assert_same
from tests.support.netns import PREFIX
from zproxy.steering.dump_entries import value_size
from zproxy.steering.info import MapInfo, MapType, map_info
from zproxy.steering.layout import MAPS
from zproxy.steering.pins import NodePins
from zproxy.steering.syscall import Kind, fd_by_id, map_keys, map_update, obj_get

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("steering")]

ARRAYS = {2, 6}
"""array, percpu_array: every element is there from the beginning."""
SOCKETS = {15, 18}
"""sockmap, sockhash: a value is a descriptor."""
TRIE = 11
MANY = 300


@contextmanager
def copied(pin: Path) -> Iterator[int]:
    """Make a map of the same shape and types as the pinned one."""
    with ExitStack() as stack:
        original = obj_get(pin)
        stack.callback(os.close, original)
        info = map_info(original)
        types = Types(0, 0, 0)
        if info.btf_id:
            btf_fd = fd_by_id(Kind.BTF, info.btf_id)
            stack.callback(os.close, btf_fd)
            types = Types(btf_fd, info.btf_key_type_id, info.btf_value_type_id)
        shape = (info.type, info.key_size, info.value_size, info.max_entries, info.name, info.flags)
        yield stack.enter_context(made(Shape(*shape, types)))


def elements(info: MapInfo, count: int, stack: ExitStack) -> Iterator[tuple[bytes, bytes]]:
    """Yield elements that the map takes: any bytes where any will do, sockets where it wants those."""
    chance = random.Random(f"{info.name} {count}")
    for number in range(count):
        key = chance.randbytes(info.key_size)
        value = chance.randbytes(value_size(info))
        if info.type in ARRAYS | {MapType.SOCKMAP}:
            key = number.to_bytes(4, "little")
        if info.type == TRIE:
            key = (chance.randrange(8 * (len(key) - 4) + 1)).to_bytes(4, "little") + key[4:]
        if info.type in SOCKETS | {MapType.SK_STORAGE}:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            descriptor = listener.fileno().to_bytes(4, "little")
            if info.type in SOCKETS:
                value = descriptor.ljust(info.value_size, b"\0")
            else:
                key = descriptor
        yield key, value


def capacity(info: MapInfo) -> int:
    """Return how many elements a test puts into a map at most."""
    if info.type in SOCKETS | {MapType.SK_STORAGE}:
        return 5
    return min(MANY, info.max_entries)


@pytest.mark.parametrize("count", [0, 1, MANY], ids=["empty", "one", "many"])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_of_ours_prints_alike(name: str, count: int) -> None:
    with copied(NodePins(f"{PREFIX}bpf").maps / name) as fd, ExitStack() as stack:
        info = map_info(fd)
        assert info.name == name
        for key, value in elements(info, min(count, capacity(info)), stack):
            map_update(fd, key, value)
        identity = ("id", str(map_id(fd)))
        key = next(iter(found_keys(fd, info)), bytes(info.key_size))
        for view in VIEWS:
            assert assert_same(*view, "map", "show", *identity).status == 0
            dumped = assert_same(*view, "map", "dump", *identity)
            for verb in ("lookup", "getnext"):
                assert_same(*view, "map", verb, *identity, "key", *map(str, key))
        if info.type in (MapType.HASH, MapType.LRU_HASH):
            assert dumped.stdout.count(b'"formatted"') == len(found_keys(fd, info)) >= min(count, 1)


def found_keys(fd: int, info: MapInfo) -> list[bytes]:
    """Return the keys of a map; none of one that cannot be walked."""
    with suppress(OSError):
        return list(map_keys(fd, info.key_size))
    return []
