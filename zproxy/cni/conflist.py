"""A network's configuration with zproxy's plugin in it and without: bytes in, bytes out, no files.

Nothing but the file's own bytes and the saved ones tells whether somebody else changed it meanwhile: what
zproxy wrote can be made again from the saved bytes.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from zproxy.cni.request import VERSIONS
from zproxy.errors import ConfigError

PLUGIN: Final = "zproxy-cni"
"""Its `type`, and so the name of its executable."""
LIST_SUFFIX: Final = ".conflist"

Entry = dict[str, Any]


def entry_of(text: bytes, name: str) -> Entry | None:
    """Return zproxy's entry in the file `name`; raise ConfigError when that is no configuration."""
    conf = _parsed(text, name)
    if "plugins" not in conf:
        return None
    return next((plugin for plugin in _plugins(conf, name) if plugin.get("type") == PLUGIN), None)


def with_entry(text: bytes, entry: Mapping[str, Any], name: str) -> bytes:
    """Return the configuration list that the file `name` becomes with `entry` as its last plugin.

    A file that is no `.conflist` holds one plugin's configuration; that becomes a list of it and `entry`.
    Raise ConfigError when the file is neither.
    """
    conf = _parsed(text, name)
    _check_version(conf, name)
    if name.endswith(LIST_SUFFIX):
        plugins = [plugin for plugin in _plugins(conf, name) if plugin.get("type") != PLUGIN]
        if not plugins:
            _bad(name, "it has no plugin that makes an interface")
        return _dumped(conf | {"plugins": [*plugins, dict(entry)]})
    if not isinstance(conf.get("type"), str):
        _bad(name, "it has no `type`")
    head = {key: conf[key] for key in ("cniVersion", "name") if key in conf}
    return _dumped(head | {"plugins": [conf, dict(entry)]})


def without_entry(text: bytes, name: str) -> bytes:
    """Return the list without zproxy's entry, everything else as it is; raise ConfigError."""
    conf = _parsed(text, name)
    plugins = [plugin for plugin in _plugins(conf, name) if plugin.get("type") != PLUGIN]
    return _dumped(conf | {"plugins": plugins})


def is_ours(text: bytes, saved: bytes, saved_name: str, name: str) -> bool:
    """Tell whether the file `name` is as zproxy made it of the `saved` one: nobody changed it since."""
    entry = entry_of(text, name)
    try:
        return entry is not None and with_entry(saved, entry, saved_name) == text
    except ConfigError:
        return False


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    try:
        conf = json.loads(text.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no JSON, so nothing was changed: {error}") from error
    if not isinstance(conf, dict):
        _bad(name, "it is no JSON object")
    if not isinstance(conf.get("name"), str):
        _bad(name, "it has no `name`")
    return conf


def _plugins(conf: dict[str, Any], name: str) -> list[dict[str, Any]]:
    plugins = conf.get("plugins")
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        _bad(name, "it has no list of `plugins`")
    return plugins


def _check_version(conf: dict[str, Any], name: str) -> None:
    """A runtime takes the newest version that it knows, an old one the only one that it looks at."""
    first, more = conf.get("cniVersion"), conf.get("cniVersions", [])
    if not isinstance(more, list):
        _bad(name, "its `cniVersions` are no list")
    versions = more if first is None else [first, *more]
    newest = max(versions, key=_number, default=None)
    for version in (newest, newest if first is None else first):
        if version not in VERSIONS:
            said = "none" if version is None else str(version)
            _bad(name, f"its cniVersion is {said}, and zproxy-cni has {', '.join(VERSIONS)}")


def _number(version: Any) -> list[int]:
    """What is no version comes last, so that it is found and named."""
    try:
        return [int(part) for part in str(version).split(".")]
    except ValueError:
        return [sys.maxsize]


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _bad(name: str, what: str) -> NoReturn:
    raise ConfigError(f"{name} is no CNI configuration, so nothing was changed: {what}")


def _dumped(conf: Mapping[str, Any]) -> bytes:
    return json.dumps(conf, indent=2).encode() + b"\n"
