"""docs/kubernetes.md says what the code does: kinds, rights, names and bounds."""

import importlib
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support import documents
from zproxy.kube import objects
from zproxy.kube.objects import KINDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "kubernetes.md"


def rules() -> list[dict[str, Any]]:
    (text,) = [block.text for block in documents.blocks(DOCUMENT.read_text()) if block.mark == "rbac"]
    found: list[dict[str, Any]] = yaml.safe_load(text)["rules"]
    return found


def test_every_kind_that_is_watched_has_a_row() -> None:
    rows = documents.rows(DOCUMENT, "## What is watched")
    assert [(row[0].strip("`"), row[1].strip("`")) for row in rows] == [
        (kind.name, kind.path) for kind in KINDS
    ]


def test_what_is_watched_may_be_listed_and_watched_and_nothing_else() -> None:
    granted = {
        (group, resource)
        for rule in rules()
        if rule["verbs"] == ["list", "watch"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    asked = {(kind.path.split("/")[2] if kind.path.startswith("/apis") else "", kind.name) for kind in KINDS}
    assert granted == asked
    (other,) = [rule for rule in rules() if rule["verbs"] != ["list", "watch"]]
    assert other == {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}


def test_every_label_and_annotation_has_a_row() -> None:
    rows = documents.rows(DOCUMENT, "## Labels and annotations")
    read = {
        value
        for name, value in vars(objects).items()
        if name.isupper() and "/" in str(value) and isinstance(value, str)
    }
    assert {row[0].strip("`") for row in rows} == read


def test_the_labels_of_names_are_those_that_are_read_in_their_order() -> None:
    text = DOCUMENT.read_text()
    for names in (objects._CANONICAL_NAME, objects._CANONICAL_REVISION):
        assert "`{}`, `{}` or `{}`".format(*names) in text


def test_the_bounds_are_those_of_the_code() -> None:
    for _, value, names in documents.rows(DOCUMENT, "## Bounds"):
        found: list[float] = []
        for module, name in re.findall(r"`(\w+)\.(\w+)`", names):
            package = "zproxy" if module == "app" else "zproxy.kube"
            bound = getattr(importlib.import_module(f"{package}.{module}"), name)
            found += bound if isinstance(bound, tuple) else [bound]
        if value == "one tenth":
            assert found == [9]
        else:
            assert [float(each) for each in value.split(" to ")] == found
