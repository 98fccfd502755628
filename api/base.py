"""The common base of our API models: camelCase on the wire, snake_case in Python, frozen, unknown fields refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of every model. ``to_wire`` leaves out what is unset (None) so that objects stay small and diffs quiet."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        defer_build=True,
    )

    def to_wire(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class LenientModel(ApiModel):
    """A model that one of our processes writes and another, perhaps of an older version, reads: unknown fields pass."""

    model_config = ConfigDict(extra="ignore")
