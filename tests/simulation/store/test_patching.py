"""Patches over plain values; the tables are the examples of RFC 7386 appendix A and RFC 6902 appendix A."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.simulation.store.patching import PatchError, clone, json_patch, merge, strategic_merge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_examples(document: Any, patch: Any, expected: Any) -> None:
    before = clone(document)
    assert merge(document, patch) == expected
    assert document == before


@given(JSON, JSON)
def test_merging_twice_is_merging_once(document: Any, patch: Any) -> None:
    once = merge(document, patch)
    assert merge(once, patch) == once


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["a", "b"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["a", "q", "b"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["a", "q", "b"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "b"]}),
        ({"foo": ["a", "b"]}, [{"op": "replace", "path": "/foo/0", "value": 1}], {"foo": [1, "b"]}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["a"]}], {"foo": ["bar", ["a"]]}),
        ({"a": 1}, [{"op": "add", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "test", "path": "/absent", "value": None}], {"a": 1}),
    ],
)
def test_json_patch_examples(document: Any, operations: Any, expected: Any) -> None:
    before = clone(document)
    assert json_patch(document, operations) == expected
    assert document == before


@pytest.mark.parametrize(
    ("operation", "unmet"),
    [
        ({"op": "test", "path": "/foo", "value": "no"}, True),
        ({"op": "remove", "path": "/absent"}, True),
        ({"op": "add", "path": "/list/5", "value": 1}, True),
        ({"op": "add", "path": "/list/01", "value": 1}, True),
        ({"op": "remove", "path": "/list/-"}, True),
        ({"op": "add", "path": "/foo/deep", "value": 1}, True),
        ({"op": "move", "from": "/absent", "path": "/foo"}, True),
        ({"op": "move", "from": "/map", "path": "/map/inside"}, False),
        ({"op": "remove", "path": ""}, False),
        ({"op": "add", "path": "/foo"}, False),
        ({"op": "add", "path": "foo", "value": 1}, False),
        ({"op": "zip", "path": "/foo"}, False),
        ({"path": "/foo"}, False),
        ("add", False),
    ],
)
def test_json_patches_that_fail(operation: Any, unmet: bool) -> None:
    with pytest.raises(PatchError) as caught:
        json_patch({"foo": "bar", "list": [1], "map": {}}, [operation])
    assert caught.value.unmet is unmet


def keys(path: tuple[str, ...]) -> tuple[str, ...]:
    return {("items",): ("name",), ("items", "inner"): ("id",)}.get(path, ())


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        (
            {"items": [{"name": "a", "x": 1}, {"name": "b"}]},
            {"items": [{"name": "a", "y": 2}, {"name": "c"}]},
            {"items": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}, {"name": "c"}]},
        ),
        (
            {"items": [{"name": "a"}, {"name": "b"}]},
            {"items": [{"name": "a", "$patch": "delete"}]},
            {"items": [{"name": "b"}]},
        ),
        ({"items": [{"name": "a"}]}, {"items": [{"$patch": "replace"}, {"name": "z"}]}, {"items": [{"name": "z"}]}),
        (
            {"items": [{"name": "a", "inner": [{"id": 1, "v": 1}]}]},
            {"items": [{"name": "a", "inner": [{"id": 1, "w": 2}, {"id": 2}]}]},
            {"items": [{"name": "a", "inner": [{"id": 1, "v": 1, "w": 2}, {"id": 2}]}]},
        ),
        ({"atomic": [1, 2]}, {"atomic": [3]}, {"atomic": [3]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$patch": "replace", "d": 3}}, {"a": {"d": 3}}),
        ({"set": ["a", "b"]}, {"$deleteFromPrimitiveList/set": ["a"]}, {"set": ["b"]}),
        (
            {"items": [{"name": "a"}]},
            {"$setElementOrder/items": [{"name": "a"}], "b": None},
            {"items": [{"name": "a"}]},
        ),
    ],
)
def test_strategic_merge(document: Any, patch: Any, expected: Any) -> None:
    assert strategic_merge(document, patch, keys) == expected
