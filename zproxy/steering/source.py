"""The BPF sources as one text for bcc: found, flattened, and hashed.

bcc rewrites `map.lookup()` in the main file only; used in an included header it compiles and then fails to
load. So quoted includes are replaced by their text, with #line markers that keep the compiler's
messages true.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import zproxy
from zproxy.errors import SteeringError
from zproxy.steering.features import has_tc_cookie

UNITS: Final = (
    "zp_sock.c",
    "zp_dns.c",
    "zp_sockops.c",
    "zp_sockopt.c",
    "zp_tc.c",
    "zp_lookup.c",
    "zp_egress.c",
    "zp_probe.c",
)
"""One compile unit, in this order: all programs share the maps."""
CFLAGS: Final = (
    "-D__LINUX_BPF_H__",  # bcc brings its own linux/bpf.h; libc's would collide with it
    "-Wall",
    "-Werror",
)
MPTCP: Final = Path("/proc/sys/net/mptcp")
"""There when the kernel was built with MPTCP."""
_INCLUDE: Final = re.compile(r'#include "([^"]+)"')


def directory() -> Path:
    """Return where the sources are: beside the installed package, or in the checkout."""
    package = Path(zproxy.__file__).parent
    for candidate in (package / "_bpf", package.parent / "bpf"):
        if (candidate / UNITS[0]).is_file():
            return candidate
    raise SteeringError(f"the BPF sources are missing from {package}; install zproxy again")


def flatten(folder: Path, units: Sequence[str] = UNITS) -> str:
    """Return the units as one text, every quoted include in place at its first mention and once only."""
    seen: set[Path] = set()
    lines: list[str] = []
    for unit in units:
        lines += _flatten_file(folder, folder / unit, seen)
    return "\n".join(lines) + "\n"


def _flatten_file(folder: Path, path: Path, seen: set[Path]) -> Iterator[str]:
    name = path.relative_to(folder)
    yield f'#line 1 "{name}"'
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = _INCLUDE.match(line)
        if match is None:
            yield line
            continue
        included = (path.parent / match[1]).resolve()
        if included not in seen:
            seen.add(included)
            yield from _flatten_file(folder, included, seen)
        yield f'#line {number + 1} "{name}"'


def cflags(mptcp: Path = MPTCP) -> tuple[str, ...]:
    """Return the compiler flags for the running kernel; they are part of what the programs do."""
    kernel_has = {"-DZP_HAS_MPTCP": mptcp.is_dir(), "-DZP_HAS_TC_COOKIE": has_tc_cookie()}
    return (*CFLAGS, *(flag for flag, is_there in kernel_has.items() if is_there))


def build_hash(text: str, flags: Sequence[str]) -> str:
    """Return 128 bits over everything that decides what the programs do."""
    return hashlib.sha256("\0".join((text, *flags)).encode()).hexdigest()[:32]
