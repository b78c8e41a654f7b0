"""Pieces of HTML that the pages share: the frame, the cards on top, figures, the cells of tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


def page_template(closing: str, *, links: str = "", scripts: str = "") -> str:
    """A self-contained page, for `str.format`: its head and lead, key figures, sections, then `closing`.

    The fields are `title`, `css`, `plotlyjs`, `lead`, `key_figures`, `sections`, and those of the arguments:
    `links` end the list of links and meta tags, `scripts` end the body; each is whole lines.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{links}<title>{{title}} - tilewright</title>
<style>{{css}}</style>
<script>{{plotlyjs}}</script>
</head>
<body>
<main>
<header><h1>{{title}}</h1><p>{{lead}}</p></header>
{{key_figures}}
{{sections}}
{closing}</main>
{scripts}</body>
</html>
"""


def key_figures_html(cards: Sequence[tuple[str, str, str]]) -> str:
    """The cards as a list of definitions."""
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}<small>{escape(note)}</small></dd></div>"
        for name, text, note in cards
    )
    return f"<dl>{''.join(items)}</dl>"


def plot_html(figure: go.Figure, id_: str) -> str:
    """A figure with an id of its own, so that the page is the same each time."""
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{id_}", default_width="100%",
        default_height=f"{figure.layout.height}px",
        config={"responsive": True, "displaylogo": False, "displayModeBar": False},
    )  # fmt: skip
    return html


def cells(tag: str, texts: Sequence[str], classes: Sequence[str]) -> str:
    """The cells of a table's row (`tag` is th or td), each with its class."""
    return "".join(f'<{tag} class="{c}">{escape(t)}</{tag}>' for t, c in zip(texts, classes, strict=True))
