"""The strict subset of YAML: lines are right, and everything clever is refused with a place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.errors import ConfigError
from zproxy.sources import document
from zproxy.sources.document import Mapping, Node, Place, Scalar, Sequence, parse, show

FILE = Path("mesh.yaml")


def plain(node: Node | None) -> object:
    """The tree as Python values, text as it was written."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.text if node is not None else None


def test_every_node_knows_its_line() -> None:
    root = parse("# mesh\na: 1\nb:\n  - x\n  -\n    c: 'y'\n", FILE)
    assert isinstance(root, Mapping)
    assert root.keys == {"a": 2, "b": 3}
    listed = root.items["b"]
    assert isinstance(listed, Sequence)
    assert [item.line for item in listed.items] == [4, 6]


def test_quotes_are_remembered() -> None:
    root = parse("[a, 'a', \"a\", '']", FILE)
    assert isinstance(root, Sequence)
    assert [item.is_quoted for item in root.items if isinstance(item, Scalar)] == [False, True, True, True]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "--- \n...\n# x"])
def test_no_document_or_an_empty_one(text: str) -> None:
    root = parse(text, FILE)
    assert root is None or (isinstance(root, Scalar) and root.text == "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n---\nb: 2\n", "mesh.yaml:2: a second document begins here"),
        ("a: &x 1\n", "mesh.yaml:1: a: the YAML anchor &x is not allowed here"),
        ("a:\n- 1\n- b: *x\n", "mesh.yaml:3: a[1].b: the YAML alias *x is not allowed here"),
        ("a: !!python/object/apply:os.system ['true']\n", "mesh.yaml:1: a: the YAML tag"),
        ("a: !foo 1\n", "the YAML tag !foo is not allowed here"),
        ("a: !!str 1\n", "the YAML tag tag:yaml.org,2002:str is not allowed here"),
        ("a: ! 1\n", "the YAML tag ! is not allowed here"),
        ("a: 1\nb: 2\na: 3\n", "mesh.yaml:3: a: the key is there twice, first in line 1; keep one"),
        (
            "x:\n- y:\n    'k': 1\n    k: 2\n",
            "mesh.yaml:4: x[0].y.k: the key is there twice, first in line 3",
        ),
        ("'': 1\n'': 2\n", "mesh.yaml:2: ['']: the key is there twice"),
        ("? [a]\n: 1\n", "mesh.yaml:1: a list or a mapping is used as a key"),
        ("{a: {b: 1}: 2}\n", "mesh.yaml:1:"),
        ("\ta: 1\n", "mesh.yaml:1: a tab is used to indent"),
        ("a:\n\tb: 1\n", "mesh.yaml:2: a tab is used to indent"),
        ("a: [1\nb: 2\n", "mesh.yaml:2: not valid YAML"),
        ("a: 'open\n", "not valid YAML while scanning a quoted scalar"),
        ("a: b: c\n", "mesh.yaml:1: not valid YAML: mapping values are not allowed in this context"),
        ("a: 1\n b: 2\n", "mesh.yaml:2: not valid YAML"),
        ("a: @b\n", "mesh.yaml:1: not valid YAML"),
        ("%YAML 9.9\n---\na: 1\n", "mesh.yaml:1: not valid YAML"),
        ("a: 1\nb: \x01\n", "mesh.yaml:2: has a control character"),
        ("a: \x00\n", "mesh.yaml:1: has a control character"),
        ("[" * 17, "mesh.yaml:1: " + "[0]" * 16 + ": nested deeper than 16 levels"),
        ("[" * 100_000, "not valid YAML while increasing flow level"),
        ("- " * 100_000 + "x", "nested deeper than 16 levels"),
        ("{a: " * 17, "nested deeper than 16 levels"),
    ],
)
def test_what_is_not_in_the_subset_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 10)
    parse("[" + "a," * 9 + "]", FILE)
    with pytest.raises(ConfigError, match="more than 10 values"):
        parse("[" + "a," * 10 + "]", FILE)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (Place(FILE, 1).under("workloads", 2), "workloads"),
        (Place(FILE, 1).under("workloads", 2).entry(3, 4).under("uid", 5), "workloads[3].uid"),
        (
            Place(FILE, 1, "services").under("default/example.com", 2).under("80", 3),
            "services[default/example.com][80]",
        ),
        (Place(FILE, 1, "a").under("b\nc", 2), "a['b\\nc']"),
        (Place(FILE, 1, "a").under("x" * 100, 2), f"a['{'x' * 60}']"),
    ],
)
def test_places_read_like_paths(place: Place, key: str) -> None:
    assert place.key == key


def test_a_place_without_a_key_names_the_line() -> None:
    assert str(Place(FILE, 7).error("is wrong")) == "mesh.yaml:7: is wrong"


@given(st.text(max_size=200))
def test_shown_text_is_one_short_printable_line(text: str) -> None:
    shown = show(text)
    assert shown
    assert shown.isprintable()


@given(st.text(alphabet="ab:-[]{}&*!'\"#\n\t ,?|>%@`\\\r\x00\x85\u2028é", max_size=60))
def test_any_text_is_a_tree_or_a_config_error(text: str) -> None:
    try:
        said = repr(plain(parse(text, FILE)))
    except ConfigError as error:
        said = str(error)
        is_tree = False
    else:
        is_tree = True
    assert is_tree or said.startswith("mesh.yaml:")
    assert said.isprintable()
