"""How bpftool's JSON writer lays out text: objects break the line before a member, arrays only before `]`.

Output is put together from pieces: functions from a record (key and value of one map element, back to back)
and a place in it to text. Everything that does not depend on the record, indentation above all, is computed
once when the piece is made; a dump then runs the pieces for each element.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from zproxy.steering.dialect import Dialect

Piece: TypeAlias = Callable[[bytes, int], str]
INDENT: Final = "    "
_BYTES: Final = tuple(f'"0x{byte:02x}"' for byte in range(256))


class Layout(NamedTuple):
    """JSON on one line, or indented when `pretty`; `depth` counts the brackets around what is written."""

    pretty: bool
    dialect: Dialect

    def line(self, depth: int) -> str:
        """Return the line break before something at `depth`; nothing unless pretty."""
        return "\n" + INDENT * depth if self.pretty else ""

    def name(self, name: str, depth: int) -> str:
        """Return the start of a member of an object at `depth`, without any comma."""
        return f"{self.line(depth + 1)}{self.dialect.quote(name)}:{' ' if self.pretty else ''}"

    def object(self, members: Sequence[tuple[str, Piece]], depth: int) -> Piece:
        """Return a piece for an object whose opening bracket stands at `depth`."""
        parts = [
            (("," if n else "{") + self.name(name, depth), piece) for n, (name, piece) in enumerate(members)
        ]
        if not parts:
            return text("{}")
        tail = self.line(depth) + "}"

        def render(record: bytes, at: int) -> str:
            return "".join([start + piece(record, at) for start, piece in parts]) + tail

        return render

    def array(self, pieces: Sequence[Piece], depth: int) -> Piece:
        """Return a piece for an array whose opening bracket stands at `depth`."""
        if not pieces:
            return text("[]")
        tail = self.line(depth) + "]"

        def render(record: bytes, at: int) -> str:
            return "[" + ",".join([piece(record, at) for piece in pieces]) + tail

        return render

    def hex_array(self, size: int, depth: int) -> Piece:
        """Return a piece for `size` bytes as an array of strings such as "0x0a"."""
        if not size:
            return text("[]")
        tail = self.line(depth) + "]"

        def render(record: bytes, at: int) -> str:
            return "[" + ",".join([_BYTES[byte] for byte in record[at : at + size]]) + tail

        return render

    def error(self, sentence: str, depth: int = 0) -> str:
        """Return the object that stands for a failure; bpftool does not escape the sentence."""
        return self.object([("error", text(f'"{sentence}"'))], depth)(b"", 0)


def text(constant: str) -> Piece:
    """Return a piece that is the same for every record."""
    return lambda _record, _at: constant


def moved(piece: Piece, distance: int) -> Piece:
    """Return `piece` reading `distance` bytes further on."""
    return (lambda record, at: piece(record, at + distance)) if distance else piece
