"""`python -m zproxy.steering.loader`: the short-lived child that compiles, loads and pins.

The only importer of bcc, which brings LLVM and some 110 MB along; both end with this process. bcc pins each
map at the path written in the sources, or takes the map that is pinned there; programs are pinned here. What
the compiler and the verifier say goes to stderr, where `build.py` reads it; stdout carries one line of JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zproxy.errors import RequirementError, ZproxyError
from zproxy.steering import headers, source, syscall
from zproxy.steering.hooks import HOOKS


def main(arguments: Sequence[str] | None = None) -> int:
    """Load into the directories that the options name; return the exit status."""
    parser = argparse.ArgumentParser(prog="zproxy.steering.loader", description=__doc__)
    parser.add_argument(
        "--maps", type=Path, required=True, help="directory in bpffs with the maps, or for them"
    )
    parser.add_argument("--programs", type=Path, required=True, help="directory in bpffs for the programs")
    options = parser.parse_args(arguments)
    try:
        answer = load(options.maps, options.programs)
    except ZproxyError as error:
        answer = {"reason": error.reason, "error": str(error)}
    print(json.dumps(answer))  # noqa: T201 - the parent process reads it
    return 1 if "error" in answer else 0


def load(maps: Path, programs: Path) -> dict[str, Any]:
    """Compile the sources, load every program and pin it; return the seconds that each step took."""
    text = source.flatten(source.directory())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="zproxy-headers-") as tree:
        headers.make_tree(Path(tree))
        os.environ["BCC_KERNEL_SOURCE"] = tree
        module = _compile(text, maps)
    compiled = time.monotonic()
    for name, hook in HOOKS.items():
        program = module.load_func(name, hook.prog_type, None, hook.attach_type)
        syscall.obj_pin(program.fd, programs / name)
    return {"compile_s": compiled - started, "load_s": time.monotonic() - compiled}


def _compile(text: str, maps: Path) -> Any:
    try:
        from bcc import BPF
    except ImportError as error:
        raise RequirementError(
            f"the eBPF compiler bcc cannot be imported by {sys.executable} ({error}); install it with "
            "`apt install python3-bpfcc`, and make the venv with "
            "`/usr/bin/python3 -m venv --system-site-packages`"
        ) from error
    return BPF(text=text, cflags=[*source.cflags(), f'-DZP_MAP_DIR="{maps}"'])


if __name__ == "__main__":
    sys.exit(main())
