"""Where a study's results are kept: an SQLite file in write-ahead mode, a row per point.

A row is there whole or not at all, whatever becomes of the process that writes it, and several processes may
write at once. The key of a row says everything that its figures depend on, so that a row never gets stale: a
point that is asked for under other circumstances is another row.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.description.errors import InputError
from tilewright.explore.evaluate import Outcome, Row, Status
from tilewright.explore.points import Value, parse_point

FILE = "study.sqlite"
FORMAT = "1"
WAIT_S = 60.0
"""For another process that writes."""
_AT_ONCE = 500
"""Keys asked for in one query."""
_TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spaces(
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, definition TEXT NOT NULL, source TEXT NOT NULL,
    folder TEXT NOT NULL, base TEXT NOT NULL, model TEXT NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS layouts(id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS points(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, space INTEGER NOT NULL, point TEXT NOT NULL,
    fidelity TEXT NOT NULL, status TEXT NOT NULL, layout INTEGER, result TEXT, note TEXT NOT NULL,
    seconds REAL NOT NULL, finished REAL NOT NULL);
"""
_PUT = """
INSERT INTO points(key, space, point, fidelity, status, layout, result, note, seconds, finished)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(key) DO UPDATE SET space = excluded.space, status = excluded.status, layout = excluded.layout,
    result = excluded.result, note = excluded.note, seconds = excluded.seconds, finished = excluded.finished
WHERE points.status != 'done'
"""


@dataclass(frozen=True, slots=True)
class SpaceRecord:
    """A space that a study folder was used for."""

    digest: str
    """Of `definition`, `base` and `model` together."""
    definition: str
    """The space as YAML."""
    source: str
    folder: str
    """That the space's files are relative to."""
    base: str
    """Hash of the resolved accelerator and workloads."""
    model: str
    """`model_version()`."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of a point."""

    status: Status
    note: str
    space: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the store."""

    id: int
    """Its number, from 1 in the order of arrival."""
    values: dict[str, Value]
    fidelity: str
    status: Status
    row: Row | None
    note: str
    seconds: float
    finished: float
    """Seconds since 1970."""


class Store:
    """An open store. Raises `InputError` for a folder that can't be used, and when the disk is full."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.path = folder / FILE
        self._layouts: dict[tuple[str, ...], int] = {}
        self._names: dict[int, list[str]] = {}
        if create:
            _make(folder)
        elif not self.path.is_file():
            raise InputError(
                f"{folder}: no study here (no {FILE}); `tilewright sweep SPACE.yaml -o {folder}` makes one"
            )
        with self._told():
            self._db = self._opened(create=create)

    def _opened(self, *, create: bool) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        try:
            if create:
                _prepare(db)
            found = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        except sqlite3.Error:
            db.close()
            raise
        if found is None or found[0] != FORMAT:
            db.close()
            raise InputError(f"{self.path}: written by another version of tilewright; name another folder")
        return db

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use(self, record: SpaceRecord) -> tuple[int, SpaceRecord | None]:
        """Note the space that is worked on now; its number, and the one that was before it, if another."""
        with self._told(), self._transaction():
            last = self.last_space()
            self._db.execute(
                "INSERT INTO spaces(digest, definition, source, folder, base, model, used) "
                "VALUES(?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT(digest) DO UPDATE SET used = excluded.used, source = excluded.source, "
                "folder = excluded.folder",
                (record.digest, record.definition, record.source, record.folder, record.base, record.model,
                 time.time()),
            )  # fmt: skip
            query = "SELECT id FROM spaces WHERE digest = ?"
            number = int(self._db.execute(query, (record.digest,)).fetchone()[0])
        return number, None if last is None or last[1].digest == record.digest else last[1]

    def last_space(self) -> tuple[int, SpaceRecord] | None:
        """The space that was worked on last, with its number."""
        query = (
            "SELECT id, digest, definition, source, folder, base, model FROM spaces "
            "ORDER BY used DESC, id DESC LIMIT 1"
        )
        found = self._db.execute(query).fetchone()
        return None if found is None else (found[0], SpaceRecord(*found[1:]))

    def circumstances(self) -> list[tuple[str, str]]:
        """Bases and model versions of all spaces, latest first."""
        query = "SELECT base, model FROM spaces GROUP BY base, model ORDER BY max(used) DESC"
        return [(base, model) for base, model in self._db.execute(query)]

    def known(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What there is of some keys."""
        found: dict[bytes, Known] = {}
        with self._told():
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, status, note, space FROM points WHERE key IN ({marks})"
                found |= {
                    key: Known(status, note, space)
                    for key, status, note, space in self._db.execute(query, some)
                }
        return found

    def adopt(self, keys: Sequence[bytes], space: int) -> None:
        """Let rows that are there already belong to a space."""
        with self._told(), self._transaction():
            self._db.executemany("UPDATE points SET space = ? WHERE key = ?", [(space, key) for key in keys])

    def put(self, space: int, fidelity: str, finished: Iterable[tuple[bytes, str, Outcome]]) -> None:
        """Keep what became of points, by key and canonical text, in one transaction. What is done stays."""
        now = time.time()
        with self._told(), self._transaction():
            self._db.executemany(
                _PUT,
                (
                    (
                        key,
                        space,
                        text,
                        fidelity,
                        each.status,
                        *self._written(each.row),
                        each.note,
                        each.seconds,
                        now,
                    )
                    for key, text, each in finished
                ),
            )

    def rows(self, space: int | None = None, fidelity: str | None = None) -> Iterator[Kept]:
        """All rows (of a space, of a fidelity), in the order of arrival, a few at a time."""
        query = (
            "SELECT id, point, fidelity, status, layout, result, note, seconds, finished FROM points "
            "WHERE (?1 IS NULL OR space = ?1) AND (?2 IS NULL OR fidelity = ?2) ORDER BY id"
        )
        with self._told():
            yield from map(self._kept, self._db.execute(query, (space, fidelity)))

    def results(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """The rows of some keys."""
        columns = "key, id, point, fidelity, status, layout, result, note, seconds, finished"
        found: dict[bytes, Kept] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            query = f"SELECT {columns} FROM points WHERE key IN ({','.join('?' * len(some))})"
            found |= {line[0]: self._kept(line[1:]) for line in self._db.execute(query, some)}
        return found

    def row(self, number: int) -> Kept | None:
        """The row with a number."""
        columns = "id, point, fidelity, status, layout, result, note, seconds, finished"
        found = self._db.execute(f"SELECT {columns} FROM points WHERE id = ?", (number,)).fetchone()
        return None if found is None else self._kept(found)

    def counts(self, space: int) -> dict[tuple[str, str], int]:
        """Rows of a space by fidelity and status."""
        query = "SELECT fidelity, status, count(*) FROM points WHERE space = ? GROUP BY fidelity, status"
        return {(fidelity, status): count for fidelity, status, count in self._db.execute(query, (space,))}

    def mean_seconds(self, fidelity: str) -> float | None:
        """What a point took on average; None if none was finished."""
        query = "SELECT avg(seconds) FROM points WHERE fidelity = ? AND status = 'done'"
        found: float | None = self._db.execute(query, (fidelity,)).fetchone()[0]
        return found

    def _written(self, row: Row | None) -> tuple[int | None, str | None]:
        """A result as it is kept: its names once for all rows that have the same ones, and its values."""
        if row is None:
            return None, None
        names = tuple(row)
        if names not in self._layouts:
            text = json.dumps(names)
            self._db.execute("INSERT OR IGNORE INTO layouts(names) VALUES(?)", (text,))
            query = "SELECT id FROM layouts WHERE names = ?"
            self._layouts[names] = self._db.execute(query, (text,)).fetchone()[0]
        return self._layouts[names], json.dumps(list(row.values()))

    def _kept(self, line: tuple[Any, ...]) -> Kept:
        number, point, fidelity, status, layout, result, note, seconds, finished = line
        row = None
        if layout is not None:
            if layout not in self._names:
                query = "SELECT names FROM layouts WHERE id = ?"
                self._names[layout] = json.loads(self._db.execute(query, (layout,)).fetchone()[0])
            row = dict(zip(self._names[layout], json.loads(result), strict=True))
        return Kept(number, parse_point(point), fidelity, status, row, note, seconds, finished)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._layouts.clear()  # one that was made here is gone
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path}: {error}; what was stored before is kept, and the same command resumes"
            ) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't make the folder {folder}: {(error.strerror or str(error)).lower()}"
        ) from None


def _prepare(db: sqlite3.Connection) -> None:
    """Write-ahead mode and the tables; two processes may do so at once."""
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # switching the mode does not wait for others by itself
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.05)
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA cache_size = -65536")
    db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    db.execute("INSERT OR IGNORE INTO meta VALUES('format', ?)", (FORMAT,))
