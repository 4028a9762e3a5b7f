"""JSON schemas, for tests."""

from __future__ import annotations

from typing import Any


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that an undescribed key is an error."""
    if isinstance(schema, dict):
        extra = {"additionalProperties": False} if "properties" in schema else {}
        return {key: closed(value) for key, value in schema.items()} | extra
    return [closed(item) for item in schema] if isinstance(schema, list) else schema
