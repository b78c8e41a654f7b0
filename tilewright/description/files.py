"""Reading the text of a file, with a clear reason where that fails."""

from __future__ import annotations

from pathlib import Path

from tilewright.description.errors import InputError, Problem

LARGEST_BYTES = 16 * 2**20
"""A description is pages long at most; anything bigger was named by mistake."""


def read_text(path: str | Path) -> str:
    """Return the text of the UTF-8 file at `path`, without a byte-order mark.

    Raises InputError if it is missing, no file, unreadable, empty, too large or no UTF-8 text.
    """
    try:
        raw = _read_bytes(Path(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{path}: {(error.strerror or '').lower()}; name a file") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read this file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: can't be read: {reason.lower()}") from None
    return _decode(raw, str(path))


def _read_bytes(path: Path) -> bytes:
    """Return the file's bytes, or its first `LARGEST_BYTES` + 1 (a device has no end)."""
    with path.open("rb") as stream:
        return stream.read(LARGEST_BYTES + 1)


def _decode(raw: bytes, source: str) -> str:
    if len(raw) > LARGEST_BYTES:
        raise InputError(f"{source}: larger than {LARGEST_BYTES // 2**20} MiB; this is no description")
    if not raw:
        raise InputError(f"{source}: the file is empty")
    if b"\0" in raw:
        raise InputError(f"{source}: a binary file, not text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        message = f"not UTF-8 text (byte 0x{raw[error.start]:02x}): save the file as UTF-8"
        raise InputError(Problem(message, source, line, column)) from None
