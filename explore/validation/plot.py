"""Predicted against measured as a picture: both axes logarithmic, a dot a case, a colour a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

Point = tuple[float, float]
"""Measured, predicted; both greater than zero."""

WIDTH, HEIGHT = 760, 520
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 20, 210, 50
_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e", "#6cc5b0", "#ff8ab7",
    "#9498a0",
)  # fmt: skip
_SHAPES = ("circle", "square", "diamond")


def svg(suites: Mapping[str, Sequence[Point]]) -> str:
    """The picture as an SVG file; equal points, equal bytes. Dashed: a factor of two off."""
    values = [value for points in suites.values() for point in points for value in point]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    frame = _Frame(low, max(high, low + 1))
    parts = [*_axes(frame), *_diagonals(frame)]
    for number, (name, points) in enumerate(suites.items()):
        colour, shape = _COLOURS[number % len(_COLOURS)], _SHAPES[number // len(_COLOURS) % len(_SHAPES)]
        parts += [_dot(shape, frame.x(measured), frame.y(made), colour) for measured, made in points]
        height = _TOP + 14 + 20 * number
        parts.append(_dot(shape, WIDTH - _RIGHT + 20, height - 4, colour))
        parts.append(_text(WIDTH - _RIGHT + 32, height, f"{name} ({len(points)})", anchor="start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


class _Frame:
    """Powers of ten to places on the picture."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def x(self, value: float) -> float:
        return _LEFT + self._share(value) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self._share(value) * (HEIGHT - _TOP - _BOTTOM)

    def _share(self, value: float) -> float:
        return (log10(value) - self.low) / (self.high - self.low)


def _axes(frame: _Frame) -> Iterable[str]:
    step = max(1, (frame.high - frame.low) // 8)
    for power in range(frame.low, frame.high + 1, step):
        x, y = frame.x(10.0**power), frame.y(10.0**power)
        yield _line(x, _TOP, x, HEIGHT - _BOTTOM, "#e5e5e5")
        yield _line(_LEFT, y, WIDTH - _RIGHT, y, "#e5e5e5")
        yield _text(x, HEIGHT - _BOTTOM + 18, f"1e{power}")
        yield _text(_LEFT - 8, y + 4, f"1e{power}", anchor="end")
    yield _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, "measured (cycles, mm², mW, pJ …)")
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    yield f'<g transform="rotate(-90 16 {middle:g})">{_text(16, middle, "predicted")}</g>'


def _diagonals(frame: _Frame) -> Iterable[str]:
    low, high = 10.0**frame.low, 10.0**frame.high
    yield _line(frame.x(low), frame.y(low), frame.x(high), frame.y(high), "#777777")
    for factor in (0.5, 2.0):
        start, end = max(low, low / factor), min(high, high / factor)
        line = _line(frame.x(start), frame.y(start * factor), frame.x(end), frame.y(end * factor), "#bbbbbb")
        yield line.replace("/>", ' stroke-dasharray="4 4"/>')


def _dot(shape: str, x: float, y: float, colour: str) -> str:
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.75"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == "diamond" else ""
    square = f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"{turned}'
    return f'{square} fill="{colour}" fill-opacity="0.75"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333333">{escape(text)}</text>'
