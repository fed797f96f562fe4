"""CONNECT in header blocks (RFC 9113 section 8.5): requests and answers, and the headers of ambient meshes.

A malformed request is no reason to kill a tunnel that others share: it becomes a Refusal, to be answered
with a status as ztunnel does.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.wire.hpack_blocks import Field, coded, indexed, literal, literal_name, plain, string_length

BAD_REQUEST: Final = 400
NETWORK: Final = "x-forwarded-network"
"""Names the network that a connection of another one comes from."""
LONGEST_AUTHORITY: Final = 259
"""A host name of 253 characters and a port; records and log lines hold it."""
_SHOWN: Final = 80
"""Bytes of a peer's field name that a reason repeats."""

_METHOD, _AUTHORITY, _STATUS = b":method", b":authority", b":status"
_CONNECT = (b"CONNECT", coded(b"CONNECT"))
_PER_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Mean nothing in HTTP/2 and make a message malformed (RFC 9113 8.2.2)."""
_USUAL = frozenset((b"baggage", b"forwarded", b"traceparent", b"tracestate", b"date"))
"""Need no closer look."""
_STATUS_OK = indexed(8)


class Headers(NamedTuple):
    """The ordinary fields of a request or answer, decoded when asked for."""

    fields: tuple[Field, ...] = ()

    def get(self, name: str) -> str | None:
        """Return the first value of a field in printable ASCII; None when absent or anything else."""
        wanted = name.encode("ascii")
        for field in self.fields:
            if field[0] == wanted:
                value = plain(field)
                text = value.decode("ascii", "replace") if value is not None else None
                return text if text is not None and text.isascii() and text.isprintable() else None
        return None


class ConnectRequest(NamedTuple):
    """A well-formed CONNECT. `authority` is `host:port`, any host; the rest is the peer's word."""

    authority: str
    headers: Headers

    @property
    def baggage(self) -> str | None:
        """The client workload's labels, as it claims them."""
        return self.headers.get("baggage")

    @property
    def forwarded(self) -> str | None:
        """The client app's address, and the host name that it meant."""
        return self.headers.get("forwarded")

    @property
    def traceparent(self) -> str | None:
        """The connection's trace id, in W3C form."""
        return self.headers.get("traceparent")


class Refusal(NamedTuple):
    """Why a request is no CONNECT that we could serve, and the HTTP status to say so."""

    status: int
    reason: str


def connect_block(
    authority: str, *, baggage: str = "", forwarded: str = "", traceparent: str = "", network: str = ""
) -> bytes:
    """Encode a CONNECT; empty fields are left out. Only `forwarded` and `traceparent` are not cached.

    `network` is the client's, and told only beyond gateways.
    """
    block = _constant_part(authority, baggage, network)
    if forwarded:
        block += _FORWARDED + _value(forwarded)
    if traceparent:
        block += _TRACEPARENT + _value(traceparent)
    return block


def answer_block(status: int, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Encode an answer."""
    block = _STATUS_OK if status == 200 else literal(":status", str(status))
    return block + b"".join(literal(name, value) for name, value in headers)


def parse_request(fields: Sequence[Field]) -> ConnectRequest | Refusal:
    """Judge a request's fields."""
    pseudo, headers, fault = _sorted(fields)
    if fault:
        return Refusal(BAD_REQUEST, fault)
    method, authority = pseudo.pop(_METHOD, None), pseudo.pop(_AUTHORITY, None)
    if method is None or method[1] not in _CONNECT:
        return Refusal(BAD_REQUEST, "expected method CONNECT")
    if pseudo:
        return Refusal(BAD_REQUEST, f"CONNECT with {_shown(next(iter(pseudo)))}")
    target = _authority(authority) if authority is not None else ""
    if not target:
        return Refusal(BAD_REQUEST, "no valid authority")
    return ConnectRequest(target, Headers(headers))


def parse_answer(fields: Sequence[Field]) -> tuple[int, Headers] | None:
    """Return status and headers of an answer; None when it is malformed."""
    pseudo, headers, fault = _sorted(fields)
    status = pseudo.pop(_STATUS, None)
    digits = plain(status) if status is not None else None
    if fault or pseudo or digits is None or len(digits) != 3 or not digits.isdigit():
        return None
    return int(digits), Headers(headers)


def baggage_text(workload: Workload) -> str:
    """Return a workload's labels as ztunnel writes them, percent-encoded where W3C baggage asks."""
    labels = (
        ("k8s.cluster.name", workload.cluster_id),
        ("k8s.namespace.name", workload.namespace),
        (f"k8s.{workload.workload_type}.name", workload.workload_name or workload.name),
        ("service.name", workload.canonical_name),
        ("service.version", workload.canonical_revision),
    )
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in labels if value)


def forwarded_text(client: Endpoint, host: str = "") -> str:
    """Return the Forwarded header (RFC 7239) for the app's own address and the host name that it meant."""
    return f'for="{client}"' + (f";host={host}" if host else "")


def forwarded_host(forwarded: str) -> str:
    """Return the host of a Forwarded header's first element (RFC 7239 4), without quotes; empty when none."""
    for pair in forwarded.partition(",")[0].split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "host":
            return value.strip('"').lower()
    return ""


def traceparent_text(entropy: bytes) -> str:
    """Return a W3C traceparent, not sampled, from 24 random bytes."""
    digits = entropy.hex()
    return f"00-{digits[:32]}-{digits[32:48]}-00"


_FORWARDED = literal_name(b"forwarded")
_TRACEPARENT = literal_name(b"traceparent")


@lru_cache(maxsize=4096)
def _constant_part(authority: str, baggage: str, network: str) -> bytes:
    block = literal(":method", "CONNECT") + literal(":authority", authority)
    if baggage:
        block += literal("baggage", baggage)
    return block + literal(NETWORK, network) if network else block


def _value(text: str) -> bytes:
    """Write the value of a field whose name is written; it is ours."""
    raw = text.encode("ascii")
    return string_length(len(raw)) + raw


def _sorted(fields: Iterable[Field]) -> tuple[dict[bytes, Field], tuple[Field, ...], str]:
    """Tell pseudo-header fields from others, and name what is malformed (RFC 9113 8.2 and 8.3)."""
    pseudo: dict[bytes, Field] = {}
    headers: list[Field] = []
    fault = ""
    for field in fields:
        name = field[0]
        if name.startswith(b":"):
            if headers or name in pseudo:
                fault = "a pseudo-header field is repeated or late"
            pseudo[name] = field
        else:
            if name not in _USUAL and (name != name.lower() or not name or name in _PER_CONNECTION):
                fault = f"field name {_shown(name)!r} is not allowed"
            headers.append(field)
    return pseudo, tuple(headers), fault


def _shown(name: bytes) -> str:
    return name[:_SHOWN].decode("ascii", "replace")


def _authority(field: Field) -> str:
    """Return `host:port` when the value has that shape, else nothing."""
    text = (plain(field) or b"").decode("ascii", "replace")
    host, _, port = text.rpartition(":")
    if (
        not host
        or len(text) > LONGEST_AUTHORITY
        or not text.isascii()
        or not text.isprintable()
        or " " in text
    ):
        return ""
    return text if port.isdigit() and 0 < int(port) < 65536 and len(port) <= 5 else ""
