"""The headers that bcc wants from a kernel tree, without a kernel tree.

The programs read UAPI contexts only, never kernel structures, so five small files and links to
linux-libc-dev's UAPI headers are enough. Compiling so takes 0.2 s and does not depend on the running kernel,
whereas distribution header packages must match it to the letter.
"""

import platform
from pathlib import Path
from typing import Final

from zproxy.errors import RequirementError

USR_INCLUDE: Final = Path("/usr/include")

_TYPES: Final = """\
#ifndef ZP_STUB_TYPES_H
#define ZP_STUB_TYPES_H
#include <uapi/linux/types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
"""
_FILES: Final = {
    "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "linux/version.h": "#define LINUX_VERSION_CODE 0\n#define KERNEL_VERSION(a, b, c) 0\n",
    "linux/types.h": _TYPES,
    "linux/log2.h": "",
    "asm/page.h": "",
}


def make_tree(root: Path, usr_include: Path = USR_INCLUDE) -> None:
    """Write the tree below `root`, which BCC_KERNEL_SOURCE is then to name.

    Raise RequirementError when linux-libc-dev is not installed.
    """
    for name, text in _FILES.items():
        path = root / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    uapi = root / "include" / "uapi"
    uapi.mkdir()
    for name in ("linux", "asm", "asm-generic"):
        (uapi / name).symlink_to(_find(name, usr_include))


def _find(name: str, usr_include: Path) -> Path:
    multiarch = usr_include / f"{platform.machine()}-linux-gnu"
    for candidate in (usr_include / name, multiarch / name):
        if (candidate / "types.h").is_file():
            return candidate
    raise RequirementError(
        f"the kernel's user-space headers ({usr_include}/{name}/types.h) are not here, and the eBPF "
        "programs are compiled against them; install them: apt install linux-libc-dev"
    )
