"""Things that a description names by their `kind`: found when they are named, by one path for all.

A registry knows the modules of one package (a module is called as its kind) and the entry points of one group
(an entry point, too), through which an installed package adds kinds of its own. Naming a kind imports its
module and no other. `KindField` makes a registry's kinds the values of a field in a pydantic model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from tilewright.description import schema
from tilewright.description.errors import InputError
from tilewright.description.names import unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KIND = "kind"


class Entry(Protocol):
    """What a registry holds."""

    @property
    def kind(self) -> str:
        """What a description calls it."""
        ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Entries by their kind."""

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        """What a kind is one of, in messages ("attention")."""
        self.group = f"tilewright.{what}"
        """The group of entry points through which others join; each names an entry."""
        self._package = package
        self._entries: dict[str, E] = {}

    def register(self, entry: E) -> E:
        """Make an entry known by its kind. Raises ValueError if another has taken it."""
        known = self._entries.get(entry.kind)
        if known is not None and known is not entry:
            raise ValueError(f"{self.what} kind {entry.kind!r} is taken by {known.title}")
        self._entries[entry.kind] = entry
        return entry

    def find(self, kind: str) -> E:
        """The entry of a kind. Raises `InputError` if there is none, or if its entry point is broken."""
        if kind not in self._entries and kind in self._modules():
            import_module(f"{self._package}.{kind}")
        if kind not in self._entries:
            for point in self._entry_points():
                if point.name == kind:
                    self._load(point)
        if kind not in self._entries:
            known = self.all()
            if kind not in known:
                raise unknown(self.what, kind, known)
        return self._entries[kind]

    def all(self) -> dict[str, E]:
        """Every entry by kind, sorted. Raises `InputError` if an entry point is broken."""
        for module in self._modules():
            import_module(f"{self._package}.{module}")
        for point in self._entry_points():
            self._load(point)
        return dict(sorted(self._entries.items()))

    def _modules(self) -> list[str]:
        from pkgutil import iter_modules

        return [module.name for module in iter_modules(import_module(self._package).__path__)]

    def _entry_points(self) -> Iterable[EntryPoint]:
        from importlib.metadata import entry_points

        return entry_points(group=self.group)

    def _load(self, point: EntryPoint) -> None:
        try:
            self.register(point.load())
        except Exception as error:
            raise InputError(
                f"entry point {point.name!r} of group {self.group!r} ({point.value}) can't be used: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class KindField:
    """Annotation of a field whose value is an instance of one of several models, told apart by `kind`.

    In a JSON Schema it is an open block (see `description.schema`), so that a description is read without
    importing what it doesn't name.
    """

    name: str
    """Of the open block; unique."""
    model: Callable[[str], type[BaseModel]]
    """The model of a kind; raises `InputError` if there is none."""
    kinds: Callable[[], Iterable[str]]
    """All of them."""

    def __post_init__(self) -> None:
        schema.offer(self.name, schema.OpenBlock(KIND, self.kinds, self._json_schema))

    def parse(self, value: object) -> BaseModel:
        """The model instance that a mapping with a `kind`, or another instance, describes.

        Raises `InputError`, or the model's own ValidationError.
        """
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if not isinstance(value, Mapping):
            raise InputError(f"must be a mapping with a `{KIND}`, not {value!r}")
        if not isinstance(value.get(KIND), str):
            raise InputError(f"needs a `{KIND}`, one of {', '.join(self.kinds())}")
        return self.model(value[KIND]).model_validate(value)

    def _json_schema(self, kind: str) -> dict[str, Any]:
        template = f"{schema.DEFINITIONS}{self.name}.{kind}.{{model}}"
        made = TypeAdapter(self.model(kind)).json_schema(ref_template=template)
        inner = made.pop("$defs", {})
        return made | {"$defs": {f"{self.name}.{kind}.{model}": part for model, part in inner.items()}}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def dump(value: BaseModel, info: SerializationInfo) -> dict[str, Any]:
            return {KIND: kind_of(value), **value.model_dump(mode=info.mode)}

        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(dump, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return schema.open_node(self.name)


def kind_of(value: BaseModel) -> str:
    """The `kind` of a model that has one."""
    return str(getattr(value, KIND, ""))
