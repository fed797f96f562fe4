"""The example of docs/why.md: the mesh that it shows gives the answer that it shows."""

import asyncio
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from zproxy_cli.main import zproxy

from tests.support import documents
from tests.support.daemons import Daemons
from zproxy.model.pod import DEFAULT_OPTIONS
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.model.workload import Workload
from zproxy.node import client
from zproxy.node.why import Why
from zproxy.sources import file
from zproxy.state.names import Asker
from zproxy.state.policy import authorize

DOCUMENT = Path(__file__).parents[1] / "docs" / "why.md"
SOURCE = "shop/cart-1"


class NewStraw:
    """The straw of a pod that has dialled nobody yet."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    async def asker(self) -> Asker:
        return Asker(self._workload)

    async def tunnels(self, view: object) -> list[object]:
        return []

    async def standings(self, of: list[tuple[str, int]]) -> list[object]:
        return [SimpleNamespace(open=0, failures=0, ejected_s=0.0) for _ in of]


def test_the_mesh_that_is_shown_gives_the_answer_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {block.mark: block.text for block in documents.blocks(DOCUMENT.read_text())}
    path = tmp_path / "mesh.yaml"
    path.write_text(shown["mesh"])
    mesh = file.load(path)
    workload = mesh.by_pod(SOURCE)
    assert workload is not None
    pod: Any = SimpleNamespace(
        name=SOURCE, workload=workload, options=DEFAULT_OPTIONS, straw=NewStraw(workload)
    )
    manager: Any = SimpleNamespace(node="node-b", pods={SOURCE: pod})
    why = Why([], manager, lambda: mesh, DEFAULT_SETTINGS, partial(authorize, DEFAULT_SETTINGS.compat))
    _, _, source, destination = shown["why-command"].split()
    answer = asyncio.run(why.why(source, destination))
    daemons = Daemons({"node-b": {"why": answer}})
    monkeypatch.setattr(client, "running_nodes", daemons.running_nodes)
    monkeypatch.setattr(client, "Client", daemons.client)
    result = CliRunner().invoke(zproxy, ["why", source, destination], prog_name="zproxy")
    assert result.stdout == shown["why-answer"]
    assert result.exit_code == 1
