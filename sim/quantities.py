"""Numbers as people read them: thousands separators, a unit, three or four significant digits."""

from __future__ import annotations

from collections.abc import Sequence

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SUBUNITS = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))
_MULTIPLES = ("", "k", "M", "G", "T", "P", "E")


def count(number: int) -> str:
    """Exact, with thousands separators: `1,234,567`."""
    return f"{number:,}"


def percent(share: float) -> str:
    """One decimal: `12.3 %`; what rounds to nothing but is not nothing reads `<0.1 %`."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def binary_bytes(number: float) -> str:
    """Bytes in powers of 1,024: `1.50 MiB`; below 1 KiB exact: `512 B`."""
    return _scaled(number, 1024, _BINARY) if number >= 1024 else f"{number:,.0f} B"


def short(number: float) -> str:
    """In powers of 1,000: `11.2 G`; below 1,000 as it is."""
    return _scaled(number, 1000, _MULTIPLES).rstrip() if number >= 1000 else f"{number:.4g}"


def fractional(number: float, unit: str) -> str:
    """A quantity that may be small, in `unit` or a fraction of it: `1.234 ms`, `56.7 µJ`."""
    factor, scaled = fraction_of(number, unit)
    return f"{number / factor:,.4g} {scaled}" if number else f"0 {unit}"


def fraction_of(number: float, unit: str) -> tuple[float, str]:
    """The unit that `number` is best written in, and how much of `unit` it is: `(1e-3, "mJ")`."""
    factor, prefix = next((s for s in _SUBUNITS if abs(number) >= s[0]), _SUBUNITS[-1])
    return factor, f"{prefix}{unit}"


def _scaled(number: float, base: int, units: Sequence[str]) -> str:
    step = 0
    # 999.5 would be written as "1000", which belongs to the next unit.
    while number >= base * 0.9995 and step + 1 < len(units):
        number /= base
        step += 1
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:,.{digits}f} {units[step]}"
