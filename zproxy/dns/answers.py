"""What the mesh answers to a query: records of services and pods, looked up once per snapshot."""

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from zproxy.dns.message import SMALLEST_PAYLOAD, Query, Section, answer, with_id
from zproxy.state import names
from zproxy.state.names import Asker
from zproxy.state.store import EMPTY, Mesh

REMEMBERED: Final = 1024
"""Names of one pod."""
_IN: Final = dns.rdataclass.IN
_REVERSE: Final = (".in-addr.arpa", ".ip6.arpa")

Records = tuple[dns.rdata.Rdata, ...]


class Known(NamedTuple):
    """What the mesh has for a name and a type; nothing at all is NODATA."""

    canonical: dns.name.Name | None = None
    """The name that has the records, where the one that was asked for is an alias."""
    records: tuple[Records, ...] = ()
    """A group for each type."""
    extra: tuple[tuple[dns.name.Name, Records], ...] = ()

    @property
    def size(self) -> int:
        """How many records there are."""
        return sum(map(len, self.records))

    @property
    def has_orders(self) -> bool:
        """Whether the records may be in another order."""
        return any(len(each) > 1 for each in self.records)

    def wire(self, query: Query, limit: int) -> bytes:
        """Return the answer to `query`, the records in a new order each time, of at most `limit` bytes."""
        assert query.message is not None
        asked = query.message.question[0].name
        owner = self.canonical or asked
        sections: list[Section] = []
        if self.canonical is not None:
            sections.append((asked, (_record(CNAME, self.canonical),)))
        sections += [(owner, random.sample(each, len(each))) for each in self.records]
        return answer(query, limit, sections, self.extra)


class Answers:
    """Of one pod."""

    def __init__(self, mesh: Callable[[], Mesh], asker: Callable[[], Asker]) -> None:
        self._mesh = mesh
        self._asker = asker
        self._of = EMPTY
        self._known: dict[tuple[str, int], Known | None] = {}
        self._made: dict[tuple[bytes, int], bytes] = {}
        """Query without its id, and limit → answer; where it is short, and always the same."""

    def find(self, name: str, kind: dns.rdatatype.RdataType) -> Known | None:
        """Return what the mesh answers; None where that is for another to say."""
        look = _LOOKS.get(kind)
        if look is None:
            return None
        mesh, key = self._mesh(), (name, int(kind))
        if mesh is not self._of or len(self._known) >= REMEMBERED:
            self._of = mesh
            self.forget()
        if key not in self._known:
            self._known[key] = look(mesh, self._asker(), name)
        return self._known[key]

    def wire(self, known: Known, query: Query, limit: int) -> bytes:
        """Return the answer to `query`, of at most `limit` bytes; `known` is what was just found for it."""
        key = query.wire[2:], limit
        made = self._made.get(key)
        if made is None:
            made = known.wire(query, limit)
            if not known.has_orders and max(len(made), len(query.wire)) <= SMALLEST_PAYLOAD:
                if len(self._made) >= REMEMBERED:
                    self._made = {}
                self._made[key] = made
        return with_id(made, query.id)

    def has(self, name: str) -> bool:
        """Tell whether the name exists, whatever its records are."""
        return self.find(name, dns.rdatatype.A) is not None

    def forget(self) -> None:
        """Look up anew: who asks has changed."""
        self._known, self._made = {}, {}


def _addresses(*versions: int) -> Callable[[Mesh, Asker, str], Known | None]:
    def look(mesh: Mesh, asker: Asker, name: str) -> Known | None:
        found = names.find(mesh, asker, name)
        if found is None or not names.is_known(asker, found):
            return None
        ips = names.addresses(mesh, asker, found)
        groups = (tuple(_address(ip) for ip in ips if (":" in ip) == (each == 6)) for each in versions)
        canonical = _name(found.canonical) if found.canonical else None
        return Known(canonical, tuple(each for each in groups if each))

    return look


def _services(mesh: Mesh, asker: Asker, name: str) -> Known | None:
    targets = names.targets(mesh, asker, name)
    if targets is None:
        return None
    records = tuple(_record(SRV, 0, 100, each.port, _name(each.name)) for each in targets)
    by_name = {each.name: each.ips for each in targets}
    extra = tuple((_name(target), group) for target, ips in by_name.items() for group in _groups(ips))
    return Known(None, (records,) if records else (), extra)


def _pointers(mesh: Mesh, asker: Asker, name: str) -> Known | None:
    if not name.endswith(_REVERSE):
        return None
    try:
        ip = dns.reversename.to_address(_name(name))
    except (dns.exception.DNSException, ValueError):
        return None
    found = names.names_of(mesh, asker, ip)
    records = tuple(_record(PTR, _name(each)) for each in found)
    return Known(None, (records,)) if records else None


def _groups(ips: tuple[str, ...]) -> Iterator[Records]:
    for is_v6 in (False, True):
        group = tuple(_address(ip) for ip in ips if (":" in ip) == is_v6)
        if group:
            yield group


@lru_cache(maxsize=4096)
def _address(ip: str) -> dns.rdata.Rdata:
    return _record(AAAA, ip) if ":" in ip else _record(A, ip)


def _record(of: type[dns.rdata.Rdata], *fields: object) -> dns.rdata.Rdata:
    """Return a record of a class of dnspython, whose constructors have no types."""
    make: Callable[..., dns.rdata.Rdata] = of
    return make(_IN, of.__name__, *fields)


@lru_cache(maxsize=4096)
def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text)


_LOOKS: Final = {
    dns.rdatatype.A: _addresses(4),
    dns.rdatatype.AAAA: _addresses(6),
    dns.rdatatype.ANY: _addresses(4, 6),
    dns.rdatatype.SRV: _services,
    dns.rdatatype.PTR: _pointers,
}
"""Other types are none that the mesh has."""
