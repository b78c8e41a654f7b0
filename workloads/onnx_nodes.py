"""Nodes of an ONNX graph: their names, titles and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from onnx import NodeProto

T = TypeVar("T")


def attribute(node: NodeProto, name: str, default: T) -> T:
    """An attribute's value, or the default where the node has none."""
    import onnx

    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else cast("T", onnx.helper.get_attribute_value(found))


def title(node: NodeProto) -> str:
    """An operator's type with its domain, as messages name it."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)


def operator_name(node: NodeProto) -> str:
    """The node's name, or its result's, as a dotted name."""
    return plain_name(node.name or node.output[0])


def plain_name(name: str) -> str:
    """A name with dots between its scopes, where exporters write slashes, and no braces."""
    return name.strip("/").replace("/", ".").replace("::", ".").replace("{", "(").replace("}", ")")


def input_name(node: NodeProto, index: int) -> str:
    """The name of an input; empty where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def output_name(node: NodeProto, index: int) -> str:
    """The name of a result; empty where it is left out."""
    return str(node.output[index]) if index < len(node.output) else ""
