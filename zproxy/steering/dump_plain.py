"""Elements without type information, as bpftool prints them: hexadecimal bytes in rows of sixteen.

A key and a value share a line while they are short: together at most 24 bytes and neither above 16. Above 16
bytes each stands under its name.
"""

from typing import Final

_ROW: Final = 16
_ONE_LINE: Final = 24


def hex_rows(data: bytes) -> str:
    """Return bytes as text: sixteen a row, a wider gap after eight, no newline at the end."""
    return "\n".join(_row(data[at : at + _ROW]) for at in range(0, len(data), _ROW))


def entry(key: bytes, value: bytes) -> str:
    """Return one element with its newline; a part of no bytes is left out, as in queues."""
    is_broken = max(len(key), len(value)) > _ROW
    gap = "\n" if is_broken else " "
    is_single = len(key) + len(value) <= _ONE_LINE and not is_broken
    first = f"key:{gap}{hex_rows(key)}" + ("  " if is_single else "\n") if key else ""
    second = f"value:{gap}{hex_rows(value)}" if value else ""
    return f"{first}{second}\n"


def per_cpu_entry(key: bytes, values: list[bytes]) -> str:
    """Return one element of a per-CPU map, a value for each possible CPU."""
    lines = [f"key:\n{hex_rows(key)}\n"]
    for cpu, value in enumerate(values):
        gap = "\n" if len(value) > _ROW else " "
        lines.append(f"value (CPU {cpu:02}):{gap}{hex_rows(value)}\n")
    return "".join(lines)


def inner_map_entry(key: bytes, map_id: int) -> str:
    """Return one element of a map of maps, whose value is the id of the inner map (bpftool 7.3)."""
    is_broken = len(key) > _ROW
    gap = "\n" if is_broken else " "
    return f"key:{gap}{hex_rows(key)}" + ("\n" if is_broken else "  ") + f"inner_map_id:{gap}{map_id} \n"


def failed_entry(key: bytes, message: str) -> str:
    """Return an element whose value cannot be read: an empty slot of a sockmap, for instance."""
    is_broken = len(key) > _ROW or len(message) > _ROW
    gap = "\n" if is_broken else " "
    is_single = len(key) + len(message) <= _ONE_LINE and not is_broken
    return f"key:{gap}{hex_rows(key)}{'  ' if is_single else chr(10)}value:{gap}{message}\n"


def _row(data: bytes) -> str:
    return "  ".join(part.hex(" ") for part in (data[:8], data[8:]) if part)
