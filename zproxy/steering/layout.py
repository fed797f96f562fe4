"""The maps as user space sees them: names, shapes, and the structures of bpf/lib/types.h.

This is the one Python description of the C side. A test compares every offset and size with the kernel's BTF
of the loaded maps, so the two cannot drift; `objects.py` compares `MAPS` with what is pinned before it trusts
a pin. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d; ports are in host order.
"""

import ipaddress
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.model.pod import DEFAULT_OPTIONS, PodOptions, UdpPolicy
from zproxy.steering.info import MapInfo, MapType

LAYOUT: Final = 4
"""ZP_LAYOUT: maps of another number are not reused."""
POD_IP4: Final = 1
"""ZP_POD_IP4 in zp_pods.flags: the pod has an IPv4 address to be steered to."""
POD_IP6: Final = 2
"""ZP_POD_IP6, likewise."""
POD_DNS: Final = 4
POD_UDP_BLOCK: Final = 8
POD_FAIL_OPEN: Final = 16
POD_TWICE: Final = 32
ENABLED: Final = struct.pack("=I", 1)
"""The value of zp_exempt."""

_NO_PREALLOC: Final = 1


class Record:
    """A C structure: its fields in order as `name:code`, codes as in `struct`, padding written out."""

    __slots__ = ("_struct", "_zeros", "fields", "name", "size")

    def __init__(self, name: str, fields: str) -> None:
        codes = dict(field.split(":") for field in fields.split())
        self.name = name
        self._struct = struct.Struct("=" + "".join(codes.values()))
        self.size = self._struct.size
        self._zeros = dict(zip(codes, self._struct.unpack(bytes(self.size)), strict=True))
        self.fields: dict[str, tuple[int, int]] = {}
        """Name → (offset, size) in bytes."""
        offset = 0
        for field, code in codes.items():
            size = struct.calcsize("=" + code)
            self.fields[field] = (offset, size)
            offset += size

    def pack(self, **values: int | bytes) -> bytes:
        """Encode; what is not given is zero. Raise KeyError for a field that there is not."""
        if unknown := values.keys() - self.fields.keys():
            raise KeyError(f"{self.name} has no {', '.join(sorted(unknown))}")
        return self._struct.pack(*(self._zeros | values).values())

    def unpack(self, raw: bytes) -> dict[str, Any]:
        """Decode into a number or bytes per field."""
        return dict(zip(self.fields, self._struct.unpack(raw), strict=True))


COOKIE: Final = Record("u64", "cookie:Q")
INDEX: Final = Record("u32", "index:I")
POD: Final = Record(
    "zp_pod",
    "flags:I generation:I slot:I outbound_port:H plaintext_port:H hbone_port:H dns_port:H "
    "ip4:4s ip6:16s uid:40s name:64s since_ns:Q",
)
IP: Final = Record("zp_ip", "ip:16s")
POD_IP: Final = Record("zp_podip", "netns:Q slot:I hbone_port:H pad:H")
ORIGIN: Final = Record("zp_origin", "ip:16s port:H family:H pad:I")
CLIENT: Final = Record("zp_client", "orig:24s via:16s via_port:H is_dialling:H epoch:I cookie:Q netns:Q")
CONN: Final = Record(
    "zp_conn", "netns:Q started_ns:Q orig_ip:16s src_ip:16s orig_port:H src_port:H family:H pad:H"
)
FLOW: Final = Record("zp_flow", "src_ip:16s dst_ip:16s src_port:H dst_port:H")
TUPLE_KEY: Final = Record("zp_tuple_key", "netns:Q flow:36s pad:I")
PODSTAT: Final = Record(
    "zp_podstat",
    "open:Q opened:Q refused:Q inbound:Q dns:Q udp_packets:Q udp_bytes:Q udp_blocked:Q ports:I epoch:I",
)
UDP_KEY: Final = Record("zp_udp_key", "netns:Q dst_ip:16s dst_port:H src_port:H pad:4s")
UDP: Final = Record("zp_udp", "packets:Q bytes:Q blocked:Q first_ns:Q last_ns:Q")
ALIAS: Final = Record("zp_alias", "netns:Q ip:16s")
RESOLVER: Final = Record("zp_resolver", "orig:24s used_ns:Q")
HEART: Final = Record("zp_heart", "beat_ns:Q")
META: Final = Record("zp_meta", "layout:I pad:I build:40s")


class MapSpec(NamedTuple):
    """What a pinned map must look like to be ours. `max_entries` are those of bpf/lib/config.h."""

    type: MapType
    key: Record
    value: Record
    max_entries: int
    flags: int = 0

    def matches(self, name: str, info: MapInfo) -> bool:
        """Whether the kernel's description of a map is this one."""
        shape = (info.name, info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        return shape == (name, self.type, self.key.size, self.value.size, self.max_entries, self.flags)


REASONS: Final = (
    "captured_v4",
    "captured_v6",
    "exempt_self",
    "exempt_loopback",
    "exempt_own_ip",
    "exempt_unspecified",
    "exempt_multicast",
    "exempt_probe",
    "refused_no_family",
    "handed_over",
    "handover_missing",
    "inbound_recorded",
    "inbound_assigned",
    "no_listener",
    "assign_error",
    "malformed",
    "map_full",
    "inbound_probe",
    "dns_captured",
    "dns_restored",
    "dns_unknown",
    "dns_refused",
    "udp_clear",
    "udp_blocked",
    "clear_blocked",
    "forwarded",
    "fail_open_out",
    "fail_open_in",
    "ports_scarce",
    "begun_before",
    "alias_blocked",
)
"""Names of enum zp_reason (bpf/lib/reasons.h), by number."""

MAX_PODS: Final = 4096
MAPS: Final[Mapping[str, MapSpec]] = {
    "zp_pods": MapSpec(MapType.HASH, COOKIE, POD, MAX_PODS, _NO_PREALLOC),
    "zp_podip": MapSpec(MapType.HASH, IP, POD_IP, 16384, _NO_PREALLOC),
    "zp_conn": MapSpec(MapType.LRU_HASH, COOKIE, CONN, 65536),
    "zp_tuple": MapSpec(MapType.LRU_HASH, TUPLE_KEY, ORIGIN, 65536),
    "zp_in": MapSpec(MapType.LRU_HASH, FLOW, INDEX, 16384),
    "zp_lsn": MapSpec(MapType.SOCKMAP, INDEX, COOKIE, MAX_PODS),
    "zp_sock": MapSpec(MapType.SK_STORAGE, INDEX, CLIENT, 0, _NO_PREALLOC),
    "zp_orig": MapSpec(MapType.SK_STORAGE, INDEX, ORIGIN, 0, _NO_PREALLOC),
    "zp_exempt": MapSpec(MapType.SK_STORAGE, INDEX, INDEX, 0, _NO_PREALLOC),
    "zp_podstat": MapSpec(MapType.HASH, COOKIE, PODSTAT, MAX_PODS, _NO_PREALLOC),
    "zp_udp": MapSpec(MapType.LRU_HASH, UDP_KEY, UDP, 16384),
    "zp_begun": MapSpec(MapType.LRU_HASH, TUPLE_KEY, COOKIE, 16384),
    "zp_resolver": MapSpec(MapType.HASH, ALIAS, RESOLVER, 65536, _NO_PREALLOC),
    "zp_probe": MapSpec(MapType.LRU_HASH, FLOW, COOKIE, 16384),
    "zp_nodeip": MapSpec(MapType.HASH, IP, INDEX, 1024, _NO_PREALLOC),
    "zp_turn": MapSpec(MapType.PERCPU_ARRAY, INDEX, COOKIE, 1),
    "zp_heart": MapSpec(MapType.ARRAY, INDEX, HEART, 1),
    "zp_stats": MapSpec(MapType.PERCPU_ARRAY, INDEX, COOKIE, len(REASONS)),
    "zp_meta": MapSpec(MapType.ARRAY, INDEX, META, 1),
}


class PodEntry(NamedTuple):
    """One enrolled pod as the kernel has it. An address is "" when the pod has none of the family."""

    cookie: int
    name: str
    uid: str
    ip4: str
    ip6: str
    slot: int
    generation: int
    outbound_port: int
    plaintext_port: int
    hbone_port: int
    dns_port: int = 0
    options: PodOptions = DEFAULT_OPTIONS
    is_twice: bool = False
    """Whether the programs hang at the pod's own cgroup and at the root: its processes run each twice."""
    since_ns: int = 0
    """CLOCK_MONOTONIC when it was switched on; 0 where a SYN past connect() may be a stranger's."""

    def key(self) -> bytes:
        """Return the key in zp_pods."""
        return COOKIE.pack(cookie=self.cookie)

    def value(self) -> bytes:
        """Return the value in zp_pods; long texts are cut and stay zero-terminated."""
        return POD.pack(
            flags=(POD_IP4 if self.ip4 else 0)
            | (POD_IP6 if self.ip6 else 0)
            | _flags_of(self.options)
            | (POD_TWICE if self.is_twice else 0),
            generation=self.generation,
            slot=self.slot,
            outbound_port=self.outbound_port,
            plaintext_port=self.plaintext_port,
            hbone_port=self.hbone_port,
            dns_port=self.dns_port,
            ip4=ipaddress.IPv4Address(self.ip4).packed if self.ip4 else b"",
            ip6=ipaddress.IPv6Address(self.ip6).packed if self.ip6 else b"",
            uid=self.uid.encode()[:39],
            name=self.name.encode()[:63],
            since_ns=self.since_ns,
        )

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> "PodEntry":
        """Return the entry that a zp_pods element holds."""
        pod = POD.unpack(value)
        return cls(
            cookie=COOKIE.unpack(key)["cookie"],
            name=_text(pod["name"]),
            uid=_text(pod["uid"]),
            ip4=str(ipaddress.IPv4Address(pod["ip4"])) if pod["flags"] & POD_IP4 else "",
            ip6=str(ipaddress.IPv6Address(pod["ip6"])) if pod["flags"] & POD_IP6 else "",
            slot=pod["slot"],
            generation=pod["generation"],
            outbound_port=pod["outbound_port"],
            plaintext_port=pod["plaintext_port"],
            hbone_port=pod["hbone_port"],
            dns_port=pod["dns_port"],
            options=_options_of(pod["flags"]),
            is_twice=bool(pod["flags"] & POD_TWICE),
            since_ns=pod["since_ns"],
        )


class ConnEntry(NamedTuple):
    """One steered client connection: who dialled what, from where, since when (CLOCK_MONOTONIC)."""

    cookie: int
    netns: int
    started_ns: int
    original: Endpoint
    source: Endpoint | None
    """None until the kernel has chosen it."""

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> "ConnEntry":
        """Return the connection that a zp_conn element holds."""
        conn = CONN.unpack(value)
        return cls(
            cookie=COOKIE.unpack(key)["cookie"],
            netns=conn["netns"],
            started_ns=conn["started_ns"],
            original=Endpoint(unpack_ip(conn["orig_ip"]), conn["orig_port"]),
            source=Endpoint(unpack_ip(conn["src_ip"]), conn["src_port"]) if conn["src_port"] else None,
        )


class Meta(NamedTuple):
    """Who made the pins of a node."""

    layout: int
    build: str

    def encode(self) -> bytes:
        """Return the value of zp_meta."""
        return META.pack(layout=self.layout, build=self.build.encode()[:39])

    @classmethod
    def decode(cls, value: bytes) -> "Meta":
        """Return what zp_meta says; layout 0 means that nobody has finished the pins."""
        meta = META.unpack(value)
        return cls(meta["layout"], _text(meta["build"]))


def pack_ip(text: str) -> bytes:
    """Return an address as the programs keep it."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def unpack_ip(raw: bytes) -> str:
    """Return an address of the programs as canonical text."""
    return canonical_ip(str(ipaddress.IPv6Address(raw)))


def _flags_of(options: PodOptions) -> int:
    return (
        (POD_DNS if options.dns else 0)
        | (POD_UDP_BLOCK if options.udp is UdpPolicy.BLOCK else 0)
        | (POD_FAIL_OPEN if options.fail_open else 0)
    )


def _options_of(flags: int) -> PodOptions:
    return PodOptions(
        dns=bool(flags & POD_DNS),
        udp=UdpPolicy.BLOCK if flags & POD_UDP_BLOCK else UdpPolicy.AUDIT,
        fail_open=bool(flags & POD_FAIL_OPEN),
    )


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
