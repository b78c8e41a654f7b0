"""Models whose fields' docstrings become descriptions in the JSON Schema, and only there.

pydantic's own `use_attribute_docstrings` reads every class's source when the class is made, which takes a
third of a program's start; here the source is read when a JSON Schema is asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

LONGEST_NAME = 200


def _one_line(name: str) -> str:
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"must be one line of at most {LONGEST_NAME} printable characters")
    return name


def _some(name: str) -> str:
    if not name.strip():
        raise ValueError("must not be empty")
    return name


Title = Annotated[str, AfterValidator(_one_line)]
"""What tables and figures call something; empty where there is a default."""

Name = Annotated[Title, AfterValidator(_some)]
"""What tables and figures call something."""


class Documented(BaseModel):
    """Base of a model whose fields are described by the strings below them."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The model's schema with descriptions put in; one that a field was given already stays."""
        made = handler(core_schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, field in cls.model_fields.items():
            described = next((texts[name] for texts in map(docstrings, cls.__mro__) if name in texts), None)
            shown = properties.get(field.alias or name)
            if described and shown is not None:
                shown.setdefault("description", described)
        return made


def docstrings(model: type) -> dict[str, str]:
    """The strings below a class's annotated attributes, its own only; empty where there is no source."""
    return _of_module(model.__module__).get(model.__qualname__, {})


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    """By class of a module, at its top level, then by attribute."""
    module = sys.modules.get(name)
    try:
        source = inspect.getsource(module) if module and not name.startswith("pydantic") else ""
    except (OSError, TypeError):  # no source, or written in C
        source = ""
    classes = (part for part in ast.parse(source).body if isinstance(part, ast.ClassDef))
    return {part.name: dict(_described(part)) for part in classes}


def _described(part: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for attribute, below in pairwise(part.body):
        if (
            isinstance(attribute, ast.AnnAssign)
            and isinstance(attribute.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield attribute.target.id, inspect.cleandoc(below.value.value)
