"""The checker of the import table finds what was planted, and nothing else."""

from pathlib import Path

import pytest

from tests.support.layers import Layer, is_only_docstring, layer_of, read_table, violations

TABLE = {
    "wire": Layer(True, ("model", "errors"), ("h2",)),
    "node": Layer(False, ("model", "node.client"), ("pyroute2 in routes.py",)),
    "lab": Layer(False, ("node.client",), ()),
    "app": Layer(False, ("everything",), ("uvloop",)),
    "__main__": Layer(False, ("cli",), ()),
    "cli": Layer(False, ("lab", "app in run.py"), ("click",)),
}


@pytest.mark.parametrize(
    ("layer", "file", "source"),
    [
        ("wire", "hbone.py", "import asyncio"),
        ("wire", "hbone.py", "from time import monotonic"),
        ("wire", "hbone.py", "def f():\n    import socket"),
        ("wire", "hbone.py", "from zproxy.net.netns import Netns"),
        ("wire", "hbone.py", "from zproxy import net"),
        ("wire", "hbone.py", "import zproxy.proxy.outbound"),
        ("wire", "hbone.py", "from . import headers"),
        ("wire", "hbone.py", "from ..model import addr"),
        ("wire", "hbone.py", "import yaml"),
        ("wire", "hbone.py", "import zproxy_cli.output"),
        ("wire", "hbone.py", "from zproxy.models import addr"),
        ("node", "manager.py", "import pyroute2"),
        ("lab", "prove.py", "from zproxy.node.manager import Manager"),
        ("lab", "prove.py", "from zproxy import node"),
        ("cli", "pods.py", "from zproxy.app import run"),
        ("app", "app.py", "import zproxy_cli.output"),
        ("dns", "server.py", "import os"),
    ],
)
def test_a_planted_import_is_found(layer: str, file: str, source: str) -> None:
    assert len(list(violations(source, file, layer, TABLE))) == 1


@pytest.mark.parametrize(
    ("layer", "file", "source"),
    [
        ("wire", "hbone.py", "import struct, h2.connection\nfrom zproxy.model.addr import Endpoint"),
        (
            "wire",
            "hbone.py",
            "import zproxy\nfrom zproxy import __version__, errors\nfrom zproxy.wire import headers",
        ),
        ("node", "routes.py", "from pyroute2 import IPRoute"),
        ("lab", "prove.py", "from zproxy.node import client\nfrom zproxy.node.client import Client"),
        ("app", "app.py", "import uvloop\nfrom zproxy.node.manager import Manager"),
        ("__main__", "__main__.py", "from zproxy_cli.main import main"),
        ("cli", "run.py", "def run():\n    from zproxy.app import main"),
        ("cli", "pods.py", "import click\nfrom zproxy_cli import output\nfrom zproxy.lab import layout"),
    ],
)
def test_an_allowed_import_passes(layer: str, file: str, source: str) -> None:
    assert not list(violations(source, file, layer, TABLE))


def test_the_table_is_read_from_the_document(tmp_path: Path) -> None:
    document = tmp_path / "architecture.md"
    document.write_text(
        "## Imports\n\n| Package | Pure | From zproxy | From elsewhere |\n|---|---|---|---|\n"
        "| `config`, `errors` | no | – | – |\n| `wire` | yes | `model`, `errors` | `h2` |\n"
        "\n## Glossary\n\n| `pod` | a | b | c |\n"
    )
    assert read_table(document) == {
        "config": Layer(False, (), ()),
        "errors": Layer(False, (), ()),
        "wire": Layer(True, ("model", "errors"), ("h2",)),
    }


def test_a_source_belongs_to_its_package_or_to_its_own_name() -> None:
    root = Path("/r")
    assert layer_of(root / "zproxy" / "lab" / "evidence" / "links.py", root) == "lab"
    assert layer_of(root / "zproxy" / "errors.py", root) == "errors"
    assert layer_of(root / "cli" / "main.py", root) == "cli"


@pytest.mark.parametrize(
    ("source", "fine"),
    [
        ('"""Says it."""\n', True),
        ('"""Says it."""\n\n__version__ = "0.1.0"\n', True),
        ('"""Says it."""\nimport os\n', False),
        ("__all__ = []\n", False),
    ],
)
def test_a_package_file_with_code_is_found(source: str, fine: bool) -> None:
    assert is_only_docstring(source) is fine
