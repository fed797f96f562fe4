"""Puts the plugin into a node's network and takes it out again; every step is whole or not at all.

A runtime takes the first file of its directory, by name. The executable is there before a configuration
names it, and goes after none does; at no moment is there no configuration.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from zproxy.cni import files
from zproxy.cni.conflist import LIST_SUFFIX, PLUGIN, entry_of, is_ours, with_entry, without_entry
from zproxy.cni.files import Contents
from zproxy.errors import ConfigError

CONF_DIR: Final = Path("/etc/cni/net.d")
BIN_DIR: Final = Path("/opt/cni/bin")
SUFFIXES: Final = (".conf", LIST_SUFFIX, ".json")
"""Of what runtimes read; a `.json` holds one plugin, as a `.conf` does."""
SAVED: Final = ".zproxy-saved"
"""Behind the name of a file as it was before zproxy's first change; no runtime reads it."""


class Site(NamedTuple):
    """Where a node keeps its networks."""

    conf_dir: Path = CONF_DIR
    bin_dir: Path = BIN_DIR

    @property
    def executable(self) -> Path:
        """The plugin."""
        return self.bin_dir / PLUGIN

    def networks(self) -> list[Path]:
        """Return the files that a runtime may read, in its order: it takes the first."""
        if not self.conf_dir.is_dir():
            return []
        found = (path for path in self.conf_dir.iterdir() if path.suffix in SUFFIXES and path.is_file())
        return sorted(found, key=lambda path: os.fsencode(path.name))


class Step(NamedTuple):
    """Something that was looked at, and what became of it."""

    what: str
    path: str
    result: str


def install(site: Site, entry: dict[str, Any], executable: bytes) -> list[Step]:
    """Have the node's first network run the plugin with `entry`, its configuration.

    Doing it again changes nothing but what differs. Raise ConfigError before anything is changed, OSError.
    """
    network = _first(site)
    plan = _plan(network, entry)
    if not site.bin_dir.is_dir():
        raise ConfigError(f"there is no {site.bin_dir}: name the runtime's directory with --bin-dir")
    has_new_executable = _write_executable(site.executable, executable)
    if plan is not None:
        _carry_out(plan)
    path = plan.target if plan else network
    return [
        Step("plugin", str(site.executable), "installed" if has_new_executable else "unchanged"),
        Step("network", str(path), "changed" if plan else "unchanged"),
    ]


def uninstall(site: Site, *, keep_plugin: bool = False) -> list[Step]:
    """Take the plugin out of every network of the node; return what was done. Raise ConfigError, OSError.

    A file that nobody else has changed is restored byte for byte. `keep_plugin` leaves the executable, for
    runtimes that end pods by the configuration that these were made by.
    """
    steps = [_restored(network) for network in site.networks() if _has_entry(network)]
    for left in (*site.conf_dir.glob(f"*{SAVED}"), *files.drafts(site.conf_dir), *files.drafts(site.bin_dir)):
        files.remove(left)
    if not keep_plugin and files.remove(site.executable):
        steps.append(Step("plugin", str(site.executable), "removed"))
    return steps


def status(site: Site, executable: bytes) -> Iterator[Step]:
    """Yield what there is, `installed` where nothing is to be done; raise ConfigError for a bad network."""
    try:
        is_same = files.read(site.executable).text == executable
        yield Step("plugin", str(site.executable), "installed" if is_same else "another version's")
    except FileNotFoundError:
        yield Step("plugin", str(site.executable), "missing")
    networks = site.networks()
    if not networks:
        yield Step("network", str(site.conf_dir), "missing")
    for number, network in enumerate(networks):
        if number == 0:
            result = "installed" if _has_entry(network) else "without zproxy-cni"
            yield Step("network", str(network), result)
        elif _has_entry(network):
            yield Step("network", str(network), f"unused: the runtime takes {networks[0].name}")


class _Plan(NamedTuple):
    """A network's file is to be another."""

    saved: Path
    base: Contents
    """As it is without zproxy."""
    target: Path
    wanted: Contents
    former: Path | None
    """A file that `target` takes the place of."""


def _has_entry(network: Path) -> bool:
    """Files of others may be as they like, and are not judged."""
    text = network.read_bytes()
    return PLUGIN.encode() in text and entry_of(text, network.name) is not None


def _first(site: Site) -> Path:
    networks = site.networks()
    if not networks:
        raise ConfigError(
            f"there is no network in {site.conf_dir}: zproxy-cni is chained behind the plugin of the "
            "cluster's network; install that first, or name its directory with --conf-dir"
        )
    return networks[0]


def _plan(network: Path, entry: dict[str, Any]) -> _Plan | None:
    """Decide what to write, None when the network is as it is to be."""
    present = files.read(network)
    found = entry_of(present.text, network.name)
    if found == entry:
        return None
    origin, base = network, present
    if found is not None:
        origin, base = _base(network, present)
    wanted = present._replace(text=with_entry(base.text, entry, origin.name))
    target = network.with_suffix(LIST_SUFFIX)
    former = network if target != network else None
    if former is not None and target.exists() and not _is_begun(target, base, network):
        raise ConfigError(f"{network} would become {target.name}, which is there already: remove one of them")
    return _Plan(_saved(origin), base, target, wanted, former)


def _base(network: Path, present: Contents) -> tuple[Path, Contents]:
    """Return a network as it is without zproxy, under the name that it had then."""
    for suffix in SUFFIXES:
        origin = network.with_suffix(suffix)
        try:
            base = files.read(_saved(origin))
        except FileNotFoundError:
            continue
        if is_ours(present.text, base.text, origin.name, network.name):
            return origin, base
    return network, present._replace(text=without_entry(present.text, network.name))


def _is_begun(target: Path, base: Contents, network: Path) -> bool:
    """Tell whether an installation broke off after it wrote `target` and before it removed `network`."""
    return is_ours(target.read_bytes(), base.text, network.name, target.name)


def _carry_out(plan: _Plan) -> None:
    files.write(plan.saved, plan.base)
    files.write(plan.target, plan.wanted)
    if plan.former is not None:
        files.remove(plan.former)


def _restored(network: Path) -> Step:
    origin, base = _base(network, files.read(network))
    files.write(origin, base)
    if origin != network:
        files.remove(network)
    is_whole = _saved(origin).exists() and files.read(_saved(origin)) == base
    return Step("network", str(origin), "restored" if is_whole else "changed")


def _write_executable(path: Path, text: bytes) -> bool:
    """Return whether it was another before."""
    wanted = Contents(text, 0o755, (os.geteuid(), os.getegid()))
    try:
        if files.read(path) == wanted:
            return False
    except FileNotFoundError:
        pass
    files.write(path, wanted)
    return True


def _saved(network: Path) -> Path:
    return network.with_name(network.name + SAVED)
