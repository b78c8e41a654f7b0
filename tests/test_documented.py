"""Descriptions in JSON Schemas, taken from the strings below a model's fields."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from tilewright.description.documented import Documented, docstrings
from tilewright.workloads.catalogue import FAMILIES, family_model


class Animal(Documented):
    """Something that lives."""

    legs: int
    """How many
    it walks on."""
    name: str


class Bird(Animal):
    """Something that flies."""

    wings: int = Field(2, description="Given.")
    """Not this."""
    nest: Animal | None = Field(None, alias="home")
    """Where it lives."""


def described(model: type[Documented]) -> dict[str, Any]:
    """The descriptions in a model's schema, by key."""
    properties = model.model_json_schema()["properties"]
    return {name: part.get("description") for name, part in properties.items()}


def test_strings_below_fields_are_their_descriptions() -> None:
    """Cleaned of their indentation, inherited ones too, by the key's alias; one that was given wins."""
    assert described(Animal) == {"legs": "How many\nit walks on.", "name": None}
    assert described(Bird) == {
        "legs": "How many\nit walks on.", "name": None, "wings": "Given.", "home": "Where it lives.",
    }  # fmt: skip


def test_a_class_without_source_has_no_descriptions() -> None:
    """A class that was made by a call, or is written in C, is left as it is."""
    assert docstrings(int) == {}
    assert docstrings(type("Made", (Animal,), {"__module__": "nowhere"})) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_model_that_says_so(family: str) -> None:
    """The catalogue's name of a family is the only one that its model takes."""
    assert family_model(family).model_fields["family"].default == family
