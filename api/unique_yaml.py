"""YAML in which a key that is given twice is an error instead of a silent loss of the first."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from api import strict

Error = yaml.YAMLError


_NO_FILE = re.compile(r' *in "<[a-z ]+>", (?=line )')


def told(error: yaml.YAMLError) -> str:
    """What is wrong and where, on one line. PyYAML has a name for what it was given, which nobody else knows."""
    return " ".join(_NO_FILE.sub(" at ", str(error)).split())


def load(text: str) -> Any:
    """The data of one document. Raises :data:`Error`, and ValueError or RecursionError where PyYAML does."""
    return yaml.load(text, Loader=Loader)  # noqa: S506  a SafeLoader


class Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key which is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {strict.show(key_node.value)} is given twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)
