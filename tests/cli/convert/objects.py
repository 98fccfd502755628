"""Parts of converted manifests, as tests look at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

Obj = dict[str, Any]


def documents(text: str) -> list[Any]:
    return [entry for document in yaml.safe_load_all(text) for entry in _flat(document)]


def _flat(document: Any) -> Iterator[Any]:
    if isinstance(document, dict) and document.get("kind") == "List":
        yield from document["items"]
    elif document is not None:
        yield document


def of_kind(text: str, kind: str) -> list[Obj]:
    return [each for each in documents(text) if isinstance(each, dict) and each.get("kind") == kind]


def template(text: str) -> Obj:
    """The one claim template's ``devices``."""
    (found,) = of_kind(text, "ResourceClaimTemplate")
    devices: Obj = found["spec"]["spec"]["devices"]
    return devices


def request(text: str) -> Obj:
    """What the one request of the one template asks for exactly."""
    (found,) = template(text)["requests"]
    exactly: Obj = found["exactly"]
    return exactly


def pod(*limits: str, annotations: str = "", spec: str = "") -> str:
    """A pod named p with a container main for each of ``limits`` (the inside of a flow mapping)."""
    containers = "".join(
        f"  - {{name: {'main' if at == 0 else f'other-{at}'}, image: x, resources: {{limits: {{{each}}}}}}}\n"
        for at, each in enumerate(limits or ("",))
    )
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, annotations: {{{annotations}}}}}\n"
        f"spec:\n  containers:\n{containers}{spec}"
    )
