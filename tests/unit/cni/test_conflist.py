"""The entry in a network's configuration: put in, found, taken out, and nothing else touched."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.cni.conflist import entry_of, is_ours, with_entry, without_entry
from zproxy.errors import ConfigError

ENTRY = {"type": "zproxy-cni", "node": "node-a"}
OTHER = ENTRY | {"failOpen": True}
BRIDGE: dict[str, Any] = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}}
LIST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "plugins": [BRIDGE, {"type": "portmap"}]}
NAME = "10-net.conflist"


def text(conf: Any) -> bytes:
    return json.dumps(conf).encode()


def test_it_is_the_last_plugin_of_a_list() -> None:
    found = json.loads(with_entry(text(LIST), ENTRY, NAME))
    assert found == LIST | {"plugins": [*LIST["plugins"], ENTRY]}
    assert list(found) == list(LIST)


def test_one_that_is_there_is_replaced() -> None:
    once = with_entry(text(LIST), ENTRY, NAME)
    assert entry_of(once, NAME) == ENTRY
    assert with_entry(once, OTHER, NAME) == with_entry(text(LIST), OTHER, NAME)


@pytest.mark.parametrize("name", ["10-net.conf", "10-net.json"])
def test_a_single_plugin_becomes_a_list_of_it(name: str) -> None:
    single = {"cniVersion": "0.4.0", "name": "net"} | BRIDGE
    found = json.loads(with_entry(text(single), ENTRY, name))
    assert found == {"cniVersion": "0.4.0", "name": "net", "plugins": [single, ENTRY]}


def test_taking_it_out_leaves_what_others_did() -> None:
    changed = json.loads(with_entry(text(LIST), ENTRY, NAME))
    changed["plugins"].append({"type": "firewall"})
    assert not is_ours(text(changed), text(LIST), NAME, NAME)
    left = json.loads(without_entry(text(changed), NAME))
    assert left == LIST | {"plugins": [*LIST["plugins"], {"type": "firewall"}]}


def test_what_nobody_else_changed_is_known_by_the_saved_bytes() -> None:
    for name, base in ((NAME, LIST), ("10-net.conf", LIST | BRIDGE)):
        for entry in (ENTRY, OTHER):
            assert is_ours(with_entry(text(base), entry, name), text(base), name, NAME)
    assert not is_ours(text(LIST), text(LIST), NAME, NAME)
    assert not is_ours(with_entry(text(LIST), ENTRY, NAME), b"x", NAME, NAME)


def test_a_single_plugin_has_no_entry() -> None:
    assert entry_of(text({"name": "net"} | BRIDGE), "10-net.conf") is None


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        (b"", "10-net.conflist is no JSON, so nothing was changed: "),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"name": NaN}', "NaN is no JSON number"),
        (b"[]", "is no CNI configuration, so nothing was changed: it is no JSON object"),
        (text(LIST | {"name": None}), "it has no `name`"),
        (text(LIST | {"plugins": {}}), "it has no list of `plugins`"),
        (text(LIST | {"plugins": ["x"]}), "it has no list of `plugins`"),
        (text(LIST | {"plugins": []}), "it has no plugin that makes an interface"),
        (text(LIST | {"plugins": [ENTRY]}), "it has no plugin that makes an interface"),
    ],
)
def test_what_is_no_network_is_a_sentence(conf: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_entry(conf, ENTRY, NAME)
    assert sentence in str(caught.value)


def test_a_file_of_a_single_plugin_needs_its_type() -> None:
    with pytest.raises(ConfigError, match="it has no `type`"):
        with_entry(text(LIST), ENTRY, "10-net.conf")


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"cniVersion": "0.3.1"}, ""),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.1.0", "0.4.0", "1.1.0"]}, ""),
        ({"cniVersions": ["1.0.0"]}, ""),
        ({}, "none"),
        ({"cniVersion": "0.2.0"}, "0.2.0"),
        ({"cniVersion": "0.2.0", "cniVersions": ["1.0.0"]}, "0.2.0"),
        ({"cniVersion": "1.0.0", "cniVersions": ["1.1.0", "1.2.0"]}, "1.2.0"),
        ({"cniVersion": "1.0.0", "cniVersions": ["newest"]}, "newest"),
        ({"cniVersion": 1}, "1"),
        ({"cniVersions": "1.0.0"}, "no list"),
    ],
)
def test_a_version_in_which_every_birth_would_fail_is_refused(versions: dict[str, Any], said: str) -> None:
    conf = text({"name": "net", "plugins": [BRIDGE]} | versions)
    if not said:
        assert with_entry(conf, ENTRY, NAME)
        return
    with pytest.raises(ConfigError, match=f"10-net.conflist is no CNI configuration, .*{said}"):
        with_entry(conf, ENTRY, NAME)


WORDS = st.sampled_from(["", "ipam", "mtu", "é", "\ud800", "a b"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
PLUGINS = st.lists(st.dictionaries(WORDS, JSON, max_size=3), min_size=1, max_size=3)


@given(PLUGINS, st.dictionaries(WORDS, JSON, max_size=3))
def test_whatever_else_is_in_a_list_comes_back(plugins: list[Any], more: dict[str, Any]) -> None:
    conf = LIST | more | {"plugins": plugins}
    ours = with_entry(text(conf), ENTRY, NAME)
    assert json.loads(without_entry(ours, NAME)) == conf
    assert is_ours(ours, text(conf), NAME, NAME)
