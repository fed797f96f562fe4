"""A hostile peer's bytes: frames that make sense, mutated until they do not, and cut at awkward places.

Everything comes from one `Random`, so that a case is its seed.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

from hpack import Encoder

from zproxy.wire import frames
from zproxy.wire.headers import connect_block

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload."""

AUTHORITY: Final = "127.0.0.2:8080"
_HUFFMAN: Final = Encoder()
_CONNECT: Final = [(b":method", b"CONNECT"), (b":authority", AUTHORITY.encode())]
REQUESTS: Final = (
    connect_block(AUTHORITY),
    b"\x20" + connect_block(AUTHORITY, baggage="k8s.cluster.name=Kubernetes", forwarded='for="10.0.0.1:4"'),
    Encoder().encode(_CONNECT, huffman=True),
    Encoder().encode([*_CONNECT, (b"baggage", b"x" * 300)], huffman=True),
    Encoder().encode([(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https")]),
    Encoder().encode([*_CONNECT, (b"Upper", b"1")]),
    connect_block("127.0.0.2:15008"),
    connect_block("10.9.9.9:1"),
)
ANSWERS: Final = (
    b"\x88",
    b"\x20\x88",
    b"\x88" + Encoder().encode([(b"baggage", b"k8s.cluster.name=Kubernetes")]),
    Encoder().encode([(b":status", b"503")]),
    Encoder().encode([(b":status", b"103")]),
    Encoder().encode([(b":status", b"abc")]),
)
ODD_BLOCKS: Final = (
    b"", b"\x80", b"\xff\xff\xff\xff\x7f", b"\x3f\xff\xff\x7f", b"\x20\x20\x20\x20", b"\xbe", b"\xc0",
    b"\x40", b"\x00\x81\xff\x81\xff", b"\x00\x03abc\x7f\xff\xff\xff\x07", b"\x88" * 3000, b"\x0f\x10\x01x",
    Encoder().encode([(b"a" * 900, b"b" * 900)] * 3), b"\x00\x00\x00", b"\x44\x85\x00\x00\x00\x00\x00",
)  # fmt: skip
_CODES: Final = (0, 1, 5, 7, 8, 11, 0xFFFFFFFF)
_INCREMENTS: Final = (1, 9, 300, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31, 0)
_LENGTHS: Final = (0, 1, 2, 7, 9, 60, 250, 251, 900, 1000, 1001)
_SETTINGS: Final = (
    (1, 0), (1, 4096), (2, 0), (2, 1), (3, 0), (3, 2), (3, 100), (4, 0), (4, 1), (4, 65_535),
    (4, (1 << 31) - 1), (4, 1 << 31), (5, 16_384), (5, 16_383), (5, (1 << 24) - 1), (6, 100), (8, 1),
    (0x99, 7), (0xFFFF, 1),
)  # fmt: skip
_LEGAL_SETTINGS: Final = (
    (1, 0), (1, 4096), (3, 2), (3, 100), (4, 0), (4, 500), (4, 65_535), (4, 1 << 30), (4, (1 << 31) - 1),
    (5, 16_384), (5, 20_000), (6, 100), (8, 1), (0x99, 7), (0xFFFF, 1),
)  # fmt: skip
_POLITE_SETTINGS: Final = ((1, 0), (3, 100), (4, 65_535), (5, 16_384), (0x99, 7), (0xFFFF, 1))


class Soup:
    """Makes frames as the peer of a server or client; knows enough of its streams for most to be legal."""

    def __init__(self, rng: Random, *, to_server: bool) -> None:
        self.is_polite = False
        """Whether to leave out what ends a connection."""
        self._rng = rng
        self._random = rng.random
        self._to_server = to_server
        self._next = 1
        self._alive: list[int] = []
        """Streams that we did not end."""
        self._unanswered: list[int] = []
        self._preamble = b"\x20"

    def below(self, limit: int) -> int:
        return int(self._random() * limit)

    def opened(self) -> None:
        """The other side, a client, opened a stream."""
        self._unanswered.append(self._next)
        self._next += 2

    def frames(self, count: int) -> list[Frame]:
        """Return about `count` frames; a header block may be several."""
        made: list[Frame] = []
        for _ in range(count):
            made += self._frame()
        return made

    def _frame(self) -> list[Frame]:
        roll = self._random()
        if roll < 0.2 or not self._alive or (self._unanswered and roll < 0.5):
            return self._headers()
        if roll < 0.62:
            return [self._data()]
        if roll < 0.76:
            return [self._window_update()]
        if roll < 0.80:
            stream = self._stream(ends=True)
            return [(frames.RST_STREAM, 0, stream, _word(_CODES[self.below(len(_CODES))]))]
        if roll < 0.87:
            return [self._settings()]
        if roll < 0.92:
            return [(frames.PING, self.below(2), 0, bytes(8))]
        return [] if self.is_polite else [self._seldom()]

    def _stream(self, *, ends: bool = False) -> int:
        """Return a stream, nearly always one that is alive; with `ends` it is not afterwards."""
        alive = self._alive
        if not alive or (self._random() < 0.01 and not self.is_polite):
            return self._rng.getrandbits(31) if self._random() < 0.3 else self.below(self._next + 2)
        return alive.pop(self.below(len(alive))) if ends else alive[self.below(len(alive))]

    def _headers(self) -> list[Frame]:
        ends = self._random() < 0.1
        if self._to_server and (self._random() < 0.9 or not self._alive):
            stream, self._next = self._next, self._next + 2
            if not ends:
                self._alive.append(stream)
        elif self._unanswered:
            stream = self._unanswered.pop(self.below(len(self._unanswered)))
            if not ends:
                self._alive.append(stream)
        else:
            stream = self._stream(ends=ends)
        choices = REQUESTS if self._to_server else ANSWERS
        block = choices[0] if self._random() < 0.7 else choices[self.below(len(choices))]
        if self._random() < 0.02 and not self.is_polite:
            block = ODD_BLOCKS[self.below(len(ODD_BLOCKS))]
        elif self.is_polite or self._random() < 0.98:
            block, self._preamble = self._preamble + block, b""
        flags = frames.END_STREAM if ends else 0
        if self._random() < 0.9:
            return [self._padded(frames.HEADERS, flags | frames.END_HEADERS, stream, block)]
        cut = self.below(len(block) + 1)
        return [
            self._padded(frames.HEADERS, flags, stream, block[:cut]),
            (frames.CONTINUATION, frames.END_HEADERS, stream, block[cut:]),
        ]

    def _data(self) -> Frame:
        ends = self._random() < 0.12
        flags = frames.END_STREAM if ends else 0
        size = self.below(120)
        if self.is_polite:
            size //= 8
        elif self._random() < 0.1:
            size = _LENGTHS[self.below(len(_LENGTHS))]
        stream = self._stream(ends=ends)
        return self._padded(frames.DATA, flags, stream, bytes((stream & 0xFF,)) * size)

    def _padded(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame:
        roll = self._random()
        if roll < 0.85 or self.is_polite:
            return kind, flags, stream, payload
        if kind == frames.HEADERS and roll < 0.9:
            flags, payload = flags | frames.HAS_PRIORITY, bytes(5) + payload
            if roll < 0.87:
                return kind, flags, stream, payload
        pad = self.below(256)
        return kind, flags | frames.PADDED, stream, bytes((pad,)) + payload + bytes(pad)

    def _window_update(self) -> Frame:
        is_odd = self._random() < 0.03 and not self.is_polite
        increment = _INCREMENTS[self.below(len(_INCREMENTS))] if is_odd else 1 + self.below(2000)
        return frames.WINDOW_UPDATE, 0, self._stream() if self._random() < 0.6 else 0, _word(increment)

    def _settings(self) -> Frame:
        if self._random() < 0.2:
            return frames.SETTINGS, frames.ACK, 0, b""
        known = _POLITE_SETTINGS if self.is_polite else _SETTINGS if self._random() < 0.1 else _LEGAL_SETTINGS
        pairs = (known[self.below(len(known))] for _ in range(self.below(4)))
        payload = b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in pairs)
        return frames.SETTINGS, 0, 0, payload

    def _seldom(self) -> Frame:
        roll = self._random()
        if roll < 0.2:
            last = (0, 1, 3, (1 << 31) - 1)[self.below(4)]
            return frames.GOAWAY, 0, 0, _word(last) + _word(0) + bytes(self.below(9))
        if roll < 0.5:
            return frames.PRIORITY, 0, 1 + 2 * self.below(20), bytes(5)
        if roll < 0.51:
            return frames.PUSH_PROMISE, frames.END_HEADERS, self._stream(), bytes(4)
        if roll < 0.53:
            return frames.CONTINUATION, self.below(8), self._stream(), bytes(self.below(9))
        return 10 + self.below(246), self.below(256), self.below(12), bytes(self.below(60))


def mutate(soup: Soup, rng: Random, made: list[Frame]) -> bytes:
    """Break a few of the frames: any part of a head, the payload, the order, the framing itself."""
    for _ in range(1 + soup.below(3)):
        if not made:
            break
        at, other = soup.below(len(made)), soup.below(len(made))
        roll = soup.below(9)
        if roll == 6:
            made.insert(other, made[at])
        elif roll == 7:
            del made[at]
        elif roll == 8:
            made[at], made[other] = made[other], made[at]
        else:
            made[at] = _broken(soup, rng, made[at], roll)
    raw = bytearray(joined(made))
    if raw and soup.below(5) == 0:
        raw[soup.below(len(raw))] ^= 1 << soup.below(8)
    return bytes(raw)


def _broken(soup: Soup, rng: Random, frame: Frame, how: int) -> Frame:
    kind, flags, stream, payload = frame
    if how == 0:
        return soup.below(11), flags, stream, payload
    if how == 1:
        return kind, flags ^ 1 << soup.below(8), stream, payload
    if how == 2:
        return kind, flags, stream ^ 1 << soup.below(32), payload
    if how == 3:
        return kind, flags, stream, payload[: soup.below(len(payload) + 1)]
    if how == 4:
        return kind, flags, stream, payload + rng.randbytes(soup.below(20))
    spot = soup.below(len(payload) + 1)
    return kind, flags, stream, payload[:spot] + rng.randbytes(1) + payload[spot + 1 :]


def joined(made: Sequence[Frame]) -> bytes:
    return b"".join(
        frames.head(len(payload), kind, flags & 0xFF, stream & 0xFFFFFFFF) + payload
        for kind, flags, stream, payload in made
    )


def cuts(soup: Soup, raw: bytes) -> tuple[int, ...]:
    """Return where `raw` is cut: nowhere, everywhere, around the ends of frames, or at random."""
    size = len(raw)
    roll = soup.below(10)
    if roll < 4 or size < 2:
        return ()
    if roll == 4 and size < 400:
        return tuple(range(1, size))
    if roll < 8:
        heads, at = [], 0
        while at + frames.HEAD_SIZE <= size:
            heads.append(at)
            at += frames.HEAD_SIZE + int.from_bytes(raw[at : at + 3], "big")
        near = {head + soup.below(12) - 1 for head in heads[-8:]}
        return tuple(sorted(at for at in near if 0 < at < size))
    return tuple(sorted({1 + soup.below(size - 1) for _ in range(1 + soup.below(4))}))


def halves(soup: Soup, raw: bytes) -> tuple[bytes, ...]:
    """Return `raw` in one or two parts, between which something else may happen."""
    at = soup.below(len(raw) + 1) if soup.below(3) == 0 else 0
    return (raw[:at], raw[at:]) if at else (raw,)


def pieces(raw: bytes, at: Sequence[int]) -> list[bytes]:
    """Return `raw` cut at those places."""
    return [raw[begin:end] for begin, end in zip((0, *at), (*at, len(raw)), strict=True)]


def _word(value: int) -> bytes:
    return value.to_bytes(4, "big")
