"""Other versions of zproxy: copies of its sources that a test has changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from zproxy.steering.layout import LAYOUT

ROOT = Path(__file__).parents[2]
PACKAGES = {"zproxy": "zproxy", "cli": "zproxy_cli", "bpf": "bpf"}
"""Directories of the sources, and how they are called where Python and the loader look for them."""
INSTALL = (
    "import sys; from zproxy.steering.install import install; from zproxy.steering.pins import NodePins; "
    "install(NodePins(sys.argv[1])).close()"
)


def version(directory: Path, changes: Mapping[str, Mapping[str, str]]) -> Path:
    """Copy the sources to `directory` and replace texts in files; each must be there."""
    for name, as_name in PACKAGES.items():
        shutil.copytree(ROOT / name, directory / as_name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, texts in changes.items():
        path = directory / name
        for old, new in texts.items():
            text = path.read_text()
            assert old in text, f"{name} has no {old!r}"
            path.write_text(text.replace(old, new, 1))
    return directory


def other_layout(number: int) -> dict[str, dict[str, str]]:
    """Return the changes that make a layout of this number: zp_pod has all but its first field elsewhere."""
    return {
        "bpf/lib/types.h": {
            f"#define ZP_LAYOUT {LAYOUT}": f"#define ZP_LAYOUT {number}",
            "\tu32 generation; /*": "\tu32 former[4];\n\tu32 generation; /*",
        },
        "zproxy/steering/layout.py": {
            f"LAYOUT: Final = {LAYOUT}": f"LAYOUT: Final = {number}",
            '"flags:I generation:I': '"flags:I former:16s generation:I',
        },
    }


def install_from(directory: Path, node: str) -> None:
    """Let the version in `directory` put its programs in place under whatever runs."""
    subprocess.run(
        [sys.executable, "-c", INSTALL, node],
        env=dict(os.environ, PYTHONPATH=str(directory)),
        cwd=directory,  # Python looks there before PYTHONPATH
        check=True,
        timeout=60,
    )
