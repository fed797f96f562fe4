"""Where releases of bpftool differ: names of types, escapes, pointers, maps of maps, TCX and netfilter.

Debian 12 has v7.1, Debian 13 v7.5, Ubuntu 24.04 v7.4. A dump follows the bpftool that is installed, so that
the two can be compared; without one it follows the newest described here.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from zproxy.steering.type_names import (
    ATTACH_TYPES,
    CGROUP_ATTACH_TYPES,
    LATER_ATTACH_TYPES,
    LATER_LINK_TYPES,
    LATER_MAP_TYPES,
    LATER_PROG_TYPES,
    LINK_TYPES,
    MAP_TYPES,
    PROG_TYPES,
)

Later: TypeAlias = tuple[str, tuple[int, int]]
_ESCAPES: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f", "\b": "\\b", '"': '\\"'}


class Dialect(NamedTuple):
    """One release of bpftool."""

    version: tuple[int, int]

    def map_type(self, number: int) -> str | None:
        """Return the name of a map type, None when this release prints the number."""
        return self._name(number, MAP_TYPES, LATER_MAP_TYPES)

    def prog_type(self, number: int) -> str | None:
        """Return the name of a program type, None when this release prints the number."""
        return self._name(number, PROG_TYPES, LATER_PROG_TYPES)

    def link_type(self, number: int) -> str | None:
        """Return the name of a link type, None when this release prints the number."""
        return self._name(number, LINK_TYPES, LATER_LINK_TYPES)

    def attach_type(self, number: int) -> str | None:
        """Return the name of an attach type, None when this release prints the number."""
        return self._name(number, ATTACH_TYPES, LATER_ATTACH_TYPES)

    @property
    def cgroup_attach_types(self) -> Sequence[int]:
        """The attach types that a cgroup is asked for, in the order in which they are shown."""
        if self.version >= (7, 6):
            return CGROUP_ATTACH_TYPES
        return [n for n in range(max(LATER_ATTACH_TYPES) + 1) if self.attach_type(n)]

    def quote(self, text: str) -> str:
        """Return `text` as a JSON string; before v7.2 a backslash became a newline."""
        escapes = {**_ESCAPES, "\\": "\\n" if self.version < (7, 2) else "\\\\"}
        return '"' + "".join(escapes.get(character, character) for character in text) + '"'

    @property
    def quotes_pointers(self) -> bool:
        """Whether a pointer in the typed text form stands in quotes."""
        return self.version >= (7, 3)

    @property
    def shows_inner_map_ids(self) -> bool:
        """Whether an entry of a map of maps shows the id of the inner map as a number."""
        return self.version >= (7, 3)

    @property
    def unsupported_kind(self) -> str:
        """What stands for a value whose kind of type bpftool cannot print, floats above all."""
        return "(unsupported-kind)" if self.version >= (7, 7) else "(unsupported-kind"

    @property
    def shows_link_devices(self) -> bool:
        """Whether TCX, netkit, XDP, netfilter and struct_ops links show what they hang on, and `net` too."""
        return self.version >= (7, 3)

    @property
    def shows_orphaned(self) -> bool:
        """Whether a program says in JSON whether its device has gone."""
        return self.version >= (7, 4)

    @property
    def shows_link_cookies(self) -> bool:
        """Whether tracing links show their cookie."""
        return self.version >= (7, 6)

    def missing_link(self, number: int) -> str:
        """Return the beginning of the sentence that no link has this id; large ids were signed at first."""
        is_signed = self.version < (7, 6) and number >= 1 << 31
        return f"failed to get link with ID {number - (1 << 32) if is_signed else number}"

    def _name(self, number: int, first: Sequence[str], later: Mapping[int, Later]) -> str | None:
        if number < len(first):
            return first[number]
        name, since = later.get(number, ("", self.version))
        return name if name and self.version >= since else None


NEWEST: Final = Dialect((7, 7))


def parse(version: str) -> Dialect:
    """Read the answer of `bpftool version`; NEWEST when it is not understood."""
    match = re.search(r"v(\d+)\.(\d+)", version)
    return Dialect((int(match[1]), int(match[2]))) if match else NEWEST


def installed() -> Dialect:
    """Ask the bpftool on PATH for its version; NEWEST when there is none."""
    try:
        answer = subprocess.run(
            ["bpftool", "version"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return NEWEST
    return parse(answer.stdout)
