"""The executable that runtimes start: a few lines that run the plugin by zproxy's own interpreter.

Isolated and without site (-I -S): neither the environment of a runtime nor what else is installed has a say,
and half of the time that Python takes to start is saved.
"""

from pathlib import Path
from typing import Final

from zproxy.errors import ConfigError

LONGEST: Final = 127
"""Bytes of a first line that every kernel takes whole (BINPRM_BUF_SIZE was 128 before Linux 5.1)."""


def launcher(python: Path, library: Path) -> bytes:
    """Return the executable; `library` is the directory that the package zproxy is in. Raise ConfigError."""
    first = f"#!{python} -IS"
    if not python.is_absolute() or len(first.encode()) > LONGEST or any(map(str.isspace, str(python))):
        raise ConfigError(
            f"the kernel would not take {str(python)!r} as an interpreter: name one by an absolute path "
            f"without spaces and of at most {LONGEST - 6} bytes, with --python"
        )
    lines = (
        first,
        "import sys",
        f"sys.path.append({str(library)!r})  # behind the standard library: nothing there is replaced",
        "from zproxy.cni.plugin import main",
        "main()",
    )
    return "\n".join((*lines, "")).encode()
