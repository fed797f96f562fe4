"""`zproxy bpf map` against the installed bpftool: the same bytes, sentences and exit status."""

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, Types, freeze, loaded, made, map_id, program, push
from tests.support.bpftool import ALL_VIEWS, VIEWS, assert_same, bpftool, ours, until_same
from tests.support.btf import BtfBuilder
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Straw, dial
from zproxy.steering.btf import load_vmlinux
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.info import map_info
from zproxy.steering.pins import NodePins
from zproxy.steering.syscall import map_keys, map_update, obj_pin

pytestmark = pytest.mark.root

HASH, ARRAY, PROG_ARRAY, PERF_EVENTS, PERCPU_HASH, PERCPU_ARRAY, STACK_TRACE, CGROUP_ARRAY = range(1, 9)
LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS, DEVMAP, SOCKMAP, CPUMAP = range(9, 17)
XSKMAP, SOCKHASH, CGROUP_STORAGE, REUSEPORT, PERCPU_CGROUP_STORAGE, QUEUE, STACK, SK_STORAGE = range(17, 25)
DEVMAP_HASH, STRUCT_OPS, RINGBUF, INODE_STORAGE, TASK_STORAGE, BLOOM, USER_RINGBUF, CGRP_STORAGE = range(
    25, 33
)
NO_PREALLOC = 1

Maker = Callable[[], AbstractContextManager[int]]


@contextmanager
def filled(shape: Shape, elements: Sequence[tuple[bytes, bytes]] = ()) -> Iterator[int]:
    with made(shape) as fd:
        for key, value in elements:
            map_update(fd, key, value)
        yield fd


@contextmanager
def typed(shape: Shape, build: Callable[[BtfBuilder], tuple[int, int]], *values: bytes) -> Iterator[int]:
    """A map with BTF; keys are 0, 1, 2... in host order, or absent."""
    builder = BtfBuilder()
    key, value = build(builder)
    with loaded(builder.blob()) as btf_fd, made(shape._replace(types=Types(btf_fd, key, value))) as fd:
        for number, each in enumerate(values):
            map_update(fd, number.to_bytes(shape.key, "little"), each)
        yield fd


def numbered(count: int, key: int, value: int) -> list[tuple[bytes, bytes]]:
    return [(n.to_bytes(key, "little"), bytes((n + i) & 0xFF for i in range(value))) for n in range(count)]


def per_cpu(count: int, key: int, value: int) -> list[tuple[bytes, bytes]]:
    slot = (value + 7) & ~7
    made_of = [(n, bytes(range(n, n + value)).ljust(slot, b"\0") * possible_cpus()) for n in range(count)]
    return [(n.to_bytes(key, "little"), each) for n, each in made_of]


@contextmanager
def with_inner(kind: int) -> Iterator[int]:
    with made(Shape(ARRAY, 4, 4, 1)) as inner, made(Shape(kind, 4, 4, 3, inner_fd=inner)) as outer:
        map_update(outer, struct.pack("=I", 1), struct.pack("=I", inner))
        yield outer


@contextmanager
def with_program() -> Iterator[int]:
    with program() as prog, made(Shape(PROG_ARRAY, 4, 4, 3)) as fd:
        map_update(fd, struct.pack("=I", 2), struct.pack("=I", prog))
        yield fd


@contextmanager
def with_socket(kind: int, value: int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener, made(Shape(kind, 4, value, 3)) as fd:
        map_update(fd, struct.pack("=I", 1), listener.fileno().to_bytes(value, "little"))
        yield fd


@contextmanager
def with_flow(kind: int, value: int) -> Iterator[int]:
    """A sockhash takes established sockets only."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        fd = stack.enter_context(made(Shape(kind, 4, value, 3)))
        map_update(fd, struct.pack("=I", 1), client.fileno().to_bytes(value, "little"))
        yield fd


@contextmanager
def queued(kind: int, *values: bytes) -> Iterator[int]:
    with made(Shape(kind, 0, 8, 4)) as fd:
        for value in values:
            push(fd, value)
        yield fd


@contextmanager
def frozen() -> Iterator[int]:
    with filled(Shape(ARRAY, 4, 8, 2), numbered(2, 4, 8)) as fd:
        freeze(fd)
        yield fd


def u32_pair(types: BtfBuilder) -> tuple[int, int]:
    number = types.integer("unsigned int", 4)
    return number, number


def cgroup_key(types: BtfBuilder) -> tuple[int, int]:
    wide, number = types.integer("unsigned long long", 8), types.integer("unsigned int", 4)
    key = types.struct(
        "bpf_cgroup_storage_key", 16, [("cgroup_inode_id", wide, 0), ("attach_type", number, 64)]
    )
    return key, number


@contextmanager
def frozen_typed() -> Iterator[int]:
    with typed(Shape(ARRAY, 4, 4, 1), u32_pair) as fd:
        freeze(fd)
        yield fd


@contextmanager
def struct_ops() -> Iterator[int]:
    types = load_vmlinux()
    value = next(
        number
        for number in range(1, len(types))
        if getattr(types.type(number), "name", "") == "bpf_struct_ops_tcp_congestion_ops"
    )
    builder = BtfBuilder()
    u32_pair(builder)
    with loaded(builder.blob()) as btf_fd:
        shape = Shape(
            STRUCT_OPS, 4, types.size(value), 1, types=Types(btf_fd, 0, 0), vmlinux_value_type=value
        )
        with made(shape) as fd:
            yield fd


MAPS: dict[str, Maker] = {
    "hash": lambda: filled(Shape(HASH, 4, 8, 8), numbered(3, 4, 8)),
    "hash of one": lambda: filled(Shape(HASH, 4, 8, 8), numbered(1, 4, 8)),
    "hash, empty": lambda: filled(Shape(HASH, 4, 8, 8)),
    "hash, wide value": lambda: filled(Shape(HASH, 8, 40, 8), numbered(3, 8, 40)),
    "hash, 17 byte value": lambda: filled(Shape(HASH, 4, 17, 8), numbered(2, 4, 17)),
    "hash, 16 and 16": lambda: filled(Shape(HASH, 16, 16, 8), numbered(2, 16, 16)),
    "hash, 16 and 8": lambda: filled(Shape(HASH, 16, 8, 8), numbered(2, 16, 8)),
    "hash, 20 byte key": lambda: filled(Shape(HASH, 20, 1, 8), numbered(2, 20, 1)),
    "hash without a name": lambda: filled(
        Shape(HASH, 1, 1, 8, name="", flags=NO_PREALLOC), numbered(2, 1, 1)
    ),
    "array": lambda: filled(Shape(ARRAY, 4, 3, 4), numbered(2, 4, 3)),
    "array, frozen": frozen,
    "array with types, frozen": frozen_typed,
    "percpu hash": lambda: filled(Shape(PERCPU_HASH, 4, 5, 8), per_cpu(2, 4, 5)),
    "percpu array": lambda: filled(Shape(PERCPU_ARRAY, 4, 24, 2), per_cpu(2, 4, 24)),
    "lru": lambda: filled(Shape(LRU_HASH, 8, 4, 64), numbered(5, 8, 4)),
    "lru percpu": lambda: filled(Shape(LRU_PERCPU_HASH, 4, 8, 64), per_cpu(3, 4, 8)),
    "trie": lambda: filled(
        Shape(LPM_TRIE, 8, 1, 4, flags=NO_PREALLOC), [(b"\x20\0\0\0\x0a\x01\x02\x03", b"\7")]
    ),
    "array of maps": lambda: with_inner(ARRAY_OF_MAPS),
    "hash of maps": lambda: with_inner(HASH_OF_MAPS),
    "prog array": with_program,
    "prog array, empty": lambda: filled(Shape(PROG_ARRAY, 4, 4, 2)),
    "perf events": lambda: filled(Shape(PERF_EVENTS, 4, 4, 2)),
    "stack trace": lambda: filled(Shape(STACK_TRACE, 4, 80, 2)),
    "cgroup array": lambda: filled(Shape(CGROUP_ARRAY, 4, 4, 2)),
    "devmap": lambda: filled(Shape(DEVMAP, 4, 4, 2), [(b"\0\0\0\0", b"\1\0\0\0")]),
    "devmap hash": lambda: filled(Shape(DEVMAP_HASH, 4, 4, 2)),
    "cpumap": lambda: filled(Shape(CPUMAP, 4, 4, 2)),
    "xskmap": lambda: filled(Shape(XSKMAP, 4, 4, 2)),
    "sockmap, empty": lambda: filled(Shape(SOCKMAP, 4, 8, 2)),
    "sockmap, 4 byte values": lambda: with_socket(SOCKMAP, 4),
    "sockmap, 8 byte values": lambda: with_socket(SOCKMAP, 8),
    "sockhash": lambda: with_flow(SOCKHASH, 8),
    "sockhash, 4 byte values": lambda: with_flow(SOCKHASH, 4),
    "reuseport array": lambda: filled(Shape(REUSEPORT, 4, 8, 2)),
    "reuseport array, 4 byte values": lambda: filled(Shape(REUSEPORT, 4, 4, 2)),
    "queue": lambda: queued(QUEUE, b"01234567", b"89abcdef"),
    "stack, empty": lambda: queued(STACK),
    "ring buffer": lambda: filled(Shape(RINGBUF, 0, 0, 4096)),
    "user ring buffer": lambda: filled(Shape(USER_RINGBUF, 0, 0, 4096)),
    "bloom filter": lambda: filled(Shape(BLOOM, 0, 4, 4)),
    "socket storage": lambda: typed(Shape(SK_STORAGE, 4, 4, 0, flags=NO_PREALLOC), u32_pair),
    "inode storage": lambda: typed(Shape(INODE_STORAGE, 4, 4, 0, flags=NO_PREALLOC), u32_pair),
    "task storage": lambda: typed(Shape(TASK_STORAGE, 4, 4, 0, flags=NO_PREALLOC), u32_pair),
    "cgroup storage": lambda: typed(Shape(CGRP_STORAGE, 4, 4, 0, flags=NO_PREALLOC), u32_pair),
    "old cgroup storage": lambda: typed(Shape(CGROUP_STORAGE, 16, 4, 0), cgroup_key),
    "old percpu cgroup storage": lambda: typed(Shape(PERCPU_CGROUP_STORAGE, 16, 4, 0), cgroup_key),
    "struct ops": struct_ops,
}


@pytest.fixture(params=list(MAPS.values()), ids=list(MAPS))
def any_map(request: pytest.FixtureRequest) -> Iterator[int]:
    maker: Maker = request.param
    with maker() as fd:
        yield fd


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.parametrize("verb", ["show", "dump"])
def test_every_kind_of_map_prints_alike(any_map: int, verb: str, view: tuple[str, ...]) -> None:
    assert_same(*view, "map", verb, "id", str(map_id(any_map)))


@pytest.mark.parametrize("verb", ["lookup", "getnext"])
def test_every_kind_of_map_answers_for_a_key_alike(any_map: int, verb: str) -> None:
    identity = ("id", str(map_id(any_map)))
    size = map_info(any_map).key_size
    for view in VIEWS:
        assert_same(*view, "map", verb, *identity)
        assert_same(*view, "map", verb, *identity, "key", *["1", "0x0", "0", "0"][:size], *["0"] * (size - 4))


def keys_of(fd: int) -> list[bytes]:
    with suppress(OSError):  # not every kind can be walked
        return list(map_keys(fd, map_info(fd).key_size))
    return []


def numbers(types: BtfBuilder) -> tuple[int, int]:
    """Integers of every width and meaning, 64 bytes in all."""
    members, at = [], 0
    for size in (1, 2, 4, 8):
        for label, encoding in (("u", 0), ("s", 1)):
            members.append(
                (f"{label}{8 * size}", types.integer(f"{label}{8 * size}", size, encoding), 8 * at)
            )
            at += size
    odd = types.integer("three bytes", 4, 0, bits=24)
    small = types.integer("eight of 32", 4, 1, bits=8)
    wide = types.integer("__int128", 16)
    members += [("odd", odd, 240), ("small", small, 272), ("wide", wide, 384)]
    return types.integer("int", 4, 1), types.struct("numbers", 64, members)


def characters(types: BtfBuilder) -> tuple[int, int]:
    """What is a string, what only looks like one, and single characters."""
    index = types.integer("int", 4, 1)
    char = types.integer("char", 1, 1)
    marked = types.integer("letter", 1, 2)
    flag = types.integer("_Bool", 1, 4)
    byte = types.integer("unsigned char", 1)
    named = types.typedef("name_t", char)
    arrays = [
        ("string", types.array(types.const(types.volatile(char)), 8, index)),
        ("marked", types.array(marked, 8, index)),
        ("typedef", types.array(named, 8, index)),
        ("bytes", types.array(byte, 8, index)),
        ("flags", types.array(flag, 8, index)),
        ("letters", types.array(types.typedef("letter_t", marked), 8, index)),
    ]
    members = [(name, kind, 64 * number) for number, (name, kind) in enumerate(arrays)]
    return index, types.struct("characters", 48, members)


def shapes(types: BtfBuilder) -> tuple[int, int]:
    """Structs in arrays in unions, empty ones, pointers, enumerations."""
    number = types.integer("unsigned int", 4)
    short = types.integer("short", 2, 1)
    point = types.struct("point", 8, [("x", number, 0), ("y", short, 32), ("", short, 48)])
    grid = types.array(types.array(point, 2, number), 2, number)
    color = types.enum("color", 4, [("RED", 0), ("BLUE", -2), ("ALSO_BLUE", -2)])
    tiny = types.enum("tiny", 1, [("MINUS", -1), ("TWO", 2)])
    big = types.enum64("big", [("SMALL", 1), ("HUGE", 0xFFFFFFFF00000001), ("EDGE", 1 << 63)], signed=False)
    pointer = types.pointer(types.const(point))
    either = types.struct("", 8, [("point", point, 0), ("big", big, 0), ("pointer", pointer, 0)], union=True)
    empty = types.struct("empty", 0, [])
    none = types.array(point, 0, number)
    members = [
        *(("grid", grid, 0), ("color", types.typedef("color_t", color), 256), ("tiny", tiny, 288)),
        *(("empty", empty, 320), ("none", none, 320), ("either", either, 320), ("list", pointer, 384)),
        ("tinies", types.array(tiny, 4, number), 448),
    ]
    return number, types.struct("shapes", 64, members)


def bits(types: BtfBuilder) -> tuple[int, int]:
    number, wide = types.integer("unsigned int", 4), types.integer("unsigned long", 8)
    flag = types.integer("_Bool", 1, 4)
    fields = [
        ("a", number, 0, 3),
        ("b", number, 3, 7),
        ("whole", number, 32, 0),
        ("c", wide, 67, 33),
        ("d", flag, 100, 1),
    ]
    return number, types.bitfields("bits", 16, fields)


def old_bits(types: BtfBuilder) -> tuple[int, int]:
    """Bitfields as compilers before LLVM 8 and pahole 1.12 wrote them: in the integer's own width."""
    number = types.integer("unsigned int", 4)
    three = types.integer("unsigned int", 4, 0, bits=3)
    shifted = types.integer("unsigned int", 4, 0, bits=5, offset=2)
    return number, types.struct(
        "old", 8, [("a", three, 0), ("b", three, 29), ("c", shifted, 32), ("d", number, 32)]
    )


def floats(types: BtfBuilder) -> tuple[int, int]:
    """A kind that bpftool cannot print ends the struct that it stands in, and that one's neighbours."""
    number, double = types.integer("unsigned int", 4), types.floating("double", 8)
    inner = types.struct("inner", 16, [("before", number, 0), ("values", types.array(double, 1, number), 64)])
    return number, types.struct(
        "outer", 24, [("first", number, 0), ("inner", inner, 64), ("never", number, 192 - 32)]
    )


def tagged(types: BtfBuilder) -> tuple[int, int]:
    number = types.integer("unsigned int", 4)
    pointer = types.pointer(types.type_tag("user", number))
    return number, types.struct("tagged", 16, [("tag", pointer, 0), ("n", number, 64)])


def section(types: BtfBuilder) -> tuple[int, int]:
    number = types.integer("unsigned int", 4)
    char = types.integer("char", 1, 1)
    name = types.array(char, 8, number)
    first, second = types.variable("count", number), types.variable("label", name)
    return 0, types.section(".data", 12, [(first, 0, 4), (second, 4, 8)])


def struct_key(types: BtfBuilder) -> tuple[int, int]:
    number, byte = types.integer("unsigned int", 4), types.integer("unsigned char", 1)
    address = types.array(byte, 4, number)
    return types.struct("key", 8, [("address", address, 0), ("port", number, 32)]), address


ODD = bytes(range(0x78, 0x98)) + bytes(range(0xE0, 0x100))
TEXTS = (
    b"".join(
        (
            b"abc\0zzzz",
            b"it's\0\0\0\0",
            b"typedef\0",
            bytes(range(8)),
            b"\0\1\2\0\1\0\0\1",
            b'a"\\\0\x1f~\x7f\xff',
        )
    ),
    b"".join((b"no end!!", b"\xc3\xa9\0\0\0\0\0\0", bytes(8), b"\xff" * 8, bytes(8), b"abcdefgh")),
    b"".join((b"\\'\"tab\0\0", b"\t\0\0\0\0\0\0\0", b"12345678", b"\x80" * 8, b"\1" * 8, b" !#$%&()")),
)
TYPED: dict[str, Maker] = {
    "numbers": lambda: typed(Shape(HASH, 4, 64, 4), numbers, bytes(64), b"\xff" * 64, ODD),
    "characters": lambda: typed(Shape(HASH, 4, 48, 4), characters, *TEXTS),
    "shapes": lambda: typed(Shape(HASH, 4, 64, 4), shapes, bytes(64), b"\xfe\xff\xff\xff" * 16, ODD),
    "bitfields": lambda: typed(Shape(HASH, 4, 16, 4), bits, bytes(16), b"\xff" * 16, ODD[:16]),
    "old bitfields": lambda: typed(Shape(HASH, 4, 8, 4), old_bits, bytes(8), b"\xff" * 8, ODD[:8]),
    "floats": lambda: typed(Shape(HASH, 4, 24, 4), floats, bytes(24), ODD[:24]),
    "tags": lambda: typed(Shape(HASH, 4, 16, 4), tagged, bytes(16), ODD[:16]),
    "section": lambda: typed(Shape(ARRAY, 4, 12, 1), section, b"\7\0\0\0hello\0\0\0"),
    "struct keys": lambda: typed(Shape(LRU_HASH, 8, 4, 16), struct_key, b"\x0a\xf4\1\5", b"\0\0\0\0"),
    "empty": lambda: typed(Shape(HASH, 4, 64, 4), shapes),
    "percpu": lambda: typed(Shape(PERCPU_ARRAY, 4, 12, 2), percpu_struct, bytes(range(16)) * possible_cpus()),
    "percpu lru": lambda: typed(
        Shape(LRU_PERCPU_HASH, 4, 4, 64), u32_pair, bytes(range(8)) * possible_cpus()
    ),
    "percpu floats": lambda: typed(Shape(PERCPU_HASH, 4, 24, 4), floats, bytes(24) * possible_cpus()),
}


def percpu_struct(types: BtfBuilder) -> tuple[int, int]:
    number = types.integer("unsigned int", 4)
    return number, types.struct("three", 12, [("a", number, 0), ("b", number, 32), ("c", number, 64)])


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.parametrize("maker", TYPED.values(), ids=TYPED)
def test_typed_values_print_alike(maker: Maker, view: tuple[str, ...]) -> None:
    with maker() as fd:
        identity = ("id", str(map_id(fd)))
        assert_same(*view, "map", "show", *identity)
        dumped = assert_same(*view, "map", "dump", *identity)
        key = [str(byte) for byte in next(iter(keys_of(fd)), b"")]
        found = assert_same(*view, "map", "lookup", *identity, "key", *key)
        assert not key or found.status == 0
        assert not key or dumped.stdout.count(b"key") > 0 or b".data" in dumped.stdout


@pytest.mark.parametrize("words", [("map",), ("map", "show"), ("map", "list"), ("m", "l")], ids=" ".join)
@pytest.mark.parametrize("view", ALL_VIEWS, ids=lambda view: "".join(view) or "plain")
def test_the_list_of_all_maps_is_alike(words: tuple[str, ...], view: tuple[str, ...]) -> None:
    with made(Shape(HASH, 4, 4, 4)), frozen_typed(), made(Shape(HASH, 4, 4, 4)):
        assert b"zpt" in until_same(*view, *words).stdout


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 13])
def test_pins_are_listed_in_the_same_order(pins: Path, count: int) -> None:
    folders = [pins, pins / "b", pins / "a"]
    for folder in folders[1:]:
        folder.mkdir()
    with made(Shape(HASH, 4, 4, 4)) as fd, made(Shape(HASH, 4, 4, 4)) as other, program() as prog:
        obj_pin(prog, pins / "program")
        for number in range(count):
            obj_pin(fd, folders[number % 3] / f"pin{number}")
            obj_pin(other, folders[number % 2] / f"other{number}")
        for view in VIEWS:
            shown = until_same(*view, "-f", "map", "show", "id", str(map_id(fd)))
            assert shown.stdout.count(bytes(pins)) == count


def test_options_may_stand_anywhere(pins: Path) -> None:
    with filled(Shape(HASH, 4, 4, 4), numbered(2, 4, 4)) as fd:
        obj_pin(fd, pins / "map")
        for words in (
            *(("map", "-j", "dump", "pinned", "FILE"), ("map", "dump", "pinned", "-p", "FILE")),
            *(
                ("map", "dump", "pinned", "FILE", "-jp"),
                ("--json", "map", "dump", "--pretty", "pinned", "FILE"),
            ),
            ("map", "sh", "pin", "FILE", "--bpffs"),
        ):
            assert_same(*(str(pins / "map") if word == "FILE" else word for word in words))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
def test_several_maps_of_one_name_stand_under_headers(view: tuple[str, ...]) -> None:
    name = f"zpt_{os.getpid()}"
    with ExitStack() as stack:
        stack.enter_context(typed(Shape(HASH, 4, 4, 4, name=name), u32_pair, b"\1\2\3\4"))
        assert_same(*view, "map", "dump", "name", name)
        stack.enter_context(typed(Shape(ARRAY, 4, 4, 2, name=name), u32_pair, b"\4\3\2\1"))
        assert_same(*view, "map", "dump", "name", name)
        assert_same(*view, "map", "show", "name", name)
        assert_same(*view, "map", "lookup", "name", name, "key", "0", "0", "0", "0")
        assert_same(*view, "map", "getnext", "name", name)
        stack.enter_context(filled(Shape(HASH, 4, 4, 4, name=name), numbered(2, 4, 4)))
        assert assert_same(*view, "map", "show", "name", name).status == 0


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
def test_a_map_without_types_makes_all_of_its_name_hexadecimal(view: tuple[str, ...]) -> None:
    name = f"zpt_{os.getpid()}"
    with filled(Shape(HASH, 4, 4, 4, name=name), numbered(2, 4, 4)), ExitStack() as stack:
        stack.enter_context(typed(Shape(ARRAY, 4, 4, 2, name=name), u32_pair, b"\4\3\2\1"))
        assert assert_same(*view, "map", "dump", "name", name).status == 0


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
def test_a_map_that_cannot_be_walked_ends_the_list(view: tuple[str, ...]) -> None:
    name = f"zpt_{os.getpid()}"
    with ExitStack() as stack:
        stack.enter_context(filled(Shape(ARRAY, 4, 4, 1, name=name)))
        stack.enter_context(made(Shape(QUEUE, 0, 4, 4, name=name)))
        stack.enter_context(filled(Shape(ARRAY, 4, 4, 1, name=name)))
        assert assert_same(*view, "map", "dump", "name", name).status != 0


REFUSED = [
    "show id 4294967290",
    "show id 0x7fffffff",
    "show id -- -1",
    "show id x",
    "show id 08",
    "show id 4294967296",
    "show name nobody_has_this",
    "show name a_name_of_more_than_fifteen",
    "show pinned /sys/fs/no/such/pin",
    "show pinned /etc/passwd",
    "show pinned /tmp",
    "show pinned relative",
    "show foo bar",
    "show foo bar baz",
    "show id",
    "show id 1 2",
    "dump id 4294967290",
    "dump name nobody_has_this",
    "dump n nobody_has_this",
    "lookup id 4294967290 key 1",
    "lookup name nobody_has_this key 1",
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_worded_alike(words: str, view: tuple[str, ...]) -> None:
    assert assert_same(*view, "map", *words.split()).status == 255


KEYS = [
    "key 1 0 0 0",
    "k 01 0x0 00 0",
    "key hex 1 0 0 0",
    "key h 0x1 00 0 0",
    "key 257 256 0 -- -255",
    "key 99999999999999999999 0 0 0",
    "key 1 0 0",
    "key 1 0 0 0 0",
    "key 1 0 0 zz",
    "key 1 0 0 08",
    "key hex 1 0 0 fg",
    "key hex",
    "key",
    "value 1",
    "key 1 0 0 0 key 1 0 0 0",
    "key 1 0 0 0 value 1",
    "any",
    "noexist",
    "foo",
    "key 9 9 9 9",
    "",
]


@pytest.mark.parametrize("verb", ["lookup", "getnext"])
@pytest.mark.parametrize("words", KEYS)
def test_keys_are_read_alike(words: str, verb: str) -> None:
    with filled(Shape(HASH, 4, 4, 4), numbered(2, 4, 4)) as fd:
        for view in VIEWS:
            assert_same(*view, "map", verb, "id", str(map_id(fd)), *words.split())


def test_a_pinned_program_is_refused_alike(pins: Path) -> None:
    with program() as prog:
        obj_pin(prog, pins / "program")
        for view in VIEWS:
            assert assert_same(*view, "map", "dump", "pinned", str(pins / "program")).status == 255
            assert assert_same(*view, "map", "dump", "pinned", str(pins)).status == 255


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "".join(view) or "plain")
def test_a_large_map_prints_alike(view: tuple[str, ...]) -> None:
    with typed(Shape(HASH, 4, 64, 20_000), shapes) as fd:
        for number in range(20_000):
            map_update(fd, struct.pack("=I", number), bytes(64))
        dumped = ours(*view, "map", "dump", "id", str(map_id(fd)))
        assert dumped == bpftool(*view, "map", "dump", "id", str(map_id(fd)))


def test_our_own_maps_print_alike_with_a_pod_and_its_connection_in_them(
    straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    node = f"{PREFIX}bpf"
    maps = NodePins(node).maps
    names = sorted(path.name for path in maps.iterdir())
    assert {"zp_pods", "zp_conn"} <= set(names)
    with dial(pod, peer.ip4, 80), dial(pod, peer.ip6, 80):
        for name, verb, view in itertools.product(names, ("show", "dump"), VIEWS):
            theirs = bpftool(*view, "map", verb, "pinned", str(maps / name))
            assert ours(*view, "map", verb, name, "--node", node) == theirs
        assert b'"orig_port": 80' in ours("map", "dump", "zp_conn", "--node", node).stdout
    assert straw.pod is pod
