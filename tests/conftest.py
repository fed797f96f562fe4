"""Rules for every test: root where it is asked for, never a skip, nothing left in the kernel."""

import contextlib
import os
from collections.abc import Generator, Iterator

import pytest

from tests.support import leftovers, machine
from tests.support.netns import Namespace, pair


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make a root test without root an error with a sentence."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail(
            "this test needs root, for BPF and network namespaces; run it as root, "
            "or run `make test-unit`, which leaves such tests out",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skip a failure: what cannot run here must say so in red."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and skips are not allowed: {report.longrepr}"
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold the machine for a run with root tests: another run would take what it sees for its own remains."""
    collects_only = session.config.option.collectonly
    if os.geteuid() == 0 and not collects_only and any(map(_is_root_test, session.items)):
        stack = contextlib.ExitStack()
        stack.enter_context(machine.exclusive())
        session.config.add_cleanup(stack.close)


def _is_root_test(item: pytest.Item) -> bool:
    return item.get_closest_marker("root") is not None


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the run when its root tests have left something in the kernel."""
    if os.geteuid() != 0 or not any(map(_is_root_test, request.session.items)):
        yield
        return
    before = leftovers.snapshot()
    yield
    left = leftovers.added(before, within_s=leftovers.PATIENCE_S)
    if left:
        pytest.fail(
            "the tests left behind:\n  " + "\n  ".join(left) + "\nremove it with `make clean-root`",
            pytrace=False,
        )


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """A pod and a machine beside it."""
    with pair("pod", "peer") as sides:
        yield sides


@pytest.fixture
def pod(hosts: tuple[Namespace, Namespace]) -> Namespace:
    return hosts[0]


@pytest.fixture
def peer(hosts: tuple[Namespace, Namespace]) -> Namespace:
    return hosts[1]
