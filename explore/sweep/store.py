"""Where a study's results are kept: an SQLite file in write-ahead mode, a row per point.

A row is there whole or not at all, whatever becomes of the process that writes it, and several processes may
write at once. The key of a row says everything that its figures depend on, so that a row never gets stale: a
point that is asked for under other circumstances is another row.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import Outcome, Row, Status
from tilewright.explore.evaluation.points import Value, parse_point

FILE = "study.sqlite"
NO_SPACE = 0
"""Of rows that are no points of a space, or no longer."""
FORMAT = "2"
"""Another one also where the order changes in which a space yields its points: their numbers are in here."""
WAIT_S = 60.0
"""For another process that writes."""
_AT_ONCE = 500
"""Keys asked for in one query."""
_META = "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);"
_TABLES = """
CREATE TABLE IF NOT EXISTS spaces(
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, definition TEXT NOT NULL, source TEXT NOT NULL,
    folder TEXT NOT NULL, base TEXT NOT NULL, model TEXT NOT NULL, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS layouts(id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS points(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, space INTEGER NOT NULL, number INTEGER NOT NULL,
    point TEXT NOT NULL, fidelity TEXT NOT NULL, status TEXT NOT NULL, layout INTEGER, result TEXT,
    note TEXT NOT NULL, seconds REAL NOT NULL, finished REAL NOT NULL);
CREATE INDEX IF NOT EXISTS numbers ON points(space, number);
"""
_FPGA_TABLE = """
CREATE TABLE IF NOT EXISTS fpga(
    target TEXT NOT NULL, unit TEXT NOT NULL, measured TEXT NOT NULL, refused TEXT NOT NULL,
    finished REAL NOT NULL, PRIMARY KEY(target, unit));
"""
_RUNS_TABLE = "CREATE TABLE IF NOT EXISTS runs(key BLOB PRIMARY KEY, result BLOB NOT NULL);"
"""Both are made with their first row: most studies have none, and those of older versions are read as they
are."""
_PUT = """
INSERT INTO points(key, space, number, point, fidelity, status, layout, result, note, seconds, finished)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(key) DO UPDATE SET space = excluded.space, number = excluded.number, status = excluded.status,
    layout = excluded.layout, result = excluded.result, note = excluded.note, seconds = excluded.seconds,
    finished = excluded.finished
WHERE points.status != 'done'
"""
_COLUMNS = "number, point, fidelity, status, layout, result, note, seconds, finished"


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
    number: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the store."""

    number: int
    """Of its point, from 1 in the order in which the space yields points: the same at every fidelity, on any
    machine and with any number of processes."""
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
            self._check_format(db)
            if create:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        except (sqlite3.Error, InputError):
            db.close()
            raise
        return db

    def _check_format(self, db: sqlite3.Connection) -> None:
        known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
        found = known and db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        if found is None:
            raise InputError(f"{self.path}: no sweep has begun here")
        if found[0] != FORMAT:
            raise InputError(
                f"{self.path}: written by another version of tilewright, which kept points in another way; "
                "sweep into another folder"
            )

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
        with self._told():
            found = self._db.execute(query).fetchone()
        return None if found is None else (found[0], SpaceRecord(*found[1:]))

    def circumstances(self) -> list[tuple[str, str]]:
        """Bases and model versions of all spaces, latest first."""
        query = "SELECT base, model FROM spaces GROUP BY base, model ORDER BY max(used) DESC"
        with self._told():
            return [(base, model) for base, model in self._db.execute(query)]

    @property
    def changes(self) -> int:
        """Another number whenever another process or connection has written since."""
        with self._told():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def known(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        """What there is of some keys."""
        found: dict[bytes, Known] = {}
        with self._told():
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, status, note, space, number FROM points WHERE key IN ({marks})"
                found |= {key: Known(*rest) for key, *rest in self._db.execute(query, some)}
        return found

    def adopt(self, numbers: Mapping[bytes, int], space: int) -> None:
        """Let rows that are there already, by key, belong to a space, under these numbers."""
        with self._told(), self._transaction():
            self._db.executemany(
                "UPDATE points SET space = ?, number = ? WHERE key = ?",
                [(space, number, key) for key, number in numbers.items()],
            )

    def dismiss(self, space: int, numbers: Mapping[bytes, int]) -> None:
        """Let rows with any of these numbers that are not of these keys no longer belong to a space. They are
        kept, for when they are asked for again."""
        with self._told(), self._transaction():
            query = "SELECT key FROM points WHERE space = ? AND number BETWEEN ? AND ?"
            ends = (min(numbers.values(), default=0), max(numbers.values(), default=0))
            there = [key for (key,) in self._db.execute(query, (space, *ends))]
            self._db.executemany(
                "UPDATE points SET space = ? WHERE key = ?",
                [(NO_SPACE, key) for key in there if key not in numbers],
            )

    def put(self, space: int, fidelity: str, finished: Iterable[tuple[bytes, int, str, Outcome]]) -> None:
        """Keep what became of points, by key, number and canonical text, in one transaction. What is done
        stays."""
        now = time.time()
        with self._told(), self._transaction():
            self._db.executemany(
                _PUT,
                (
                    (
                        key,
                        space,
                        number,
                        text,
                        fidelity,
                        each.status,
                        *self._written(each.row),
                        each.note,
                        each.seconds,
                        now,
                    )
                    for key, number, text, each in finished
                ),
            )

    def rows(
        self, space: int, fidelity: str | None = None, *, as_they_arrived: bool = False
    ) -> Iterator[Kept]:
        """The rows of a space (and of a fidelity) by number, the simulated row after its bound, or in the
        order in which they arrived; a few at a time."""
        order = "id" if as_they_arrived else "number, id"
        query = (
            f"SELECT {_COLUMNS} FROM points "
            f"WHERE space = ?1 AND (?2 IS NULL OR fidelity = ?2) ORDER BY {order}"
        )
        with self._told():
            yield from map(self._kept, self._db.execute(query, (space, fidelity)))

    def results(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """The rows of some keys."""
        found: dict[bytes, Kept] = {}
        with self._told():
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                query = f"SELECT key, {_COLUMNS} FROM points WHERE key IN ({','.join('?' * len(some))})"
                found |= {line[0]: self._kept(line[1:]) for line in self._db.execute(query, some)}
        return found

    def row(self, space: int, number: int) -> Kept | None:
        """The row of a space's point, by its number; of one that was simulated after its bound, that one."""
        query = (
            f"SELECT {_COLUMNS} FROM points WHERE space = ? AND number = ? "
            "ORDER BY fidelity = 'analytic', id DESC LIMIT 1"
        )
        with self._told():
            found = self._db.execute(query, (space, number)).fetchone()
            return None if found is None else self._kept(found)

    def counts(self, space: int) -> dict[tuple[str, str], int]:
        """Rows of a space by fidelity and status."""
        query = "SELECT fidelity, status, count(*) FROM points WHERE space = ? GROUP BY fidelity, status"
        with self._told():
            found = self._db.execute(query, (space,)).fetchall()
        return {(fidelity, status): count for fidelity, status, count in found}

    def mean_seconds(self, fidelity: str) -> float | None:
        """What a point took on average; None if none was finished."""
        query = "SELECT avg(seconds) FROM points WHERE fidelity = ? AND status = 'done'"
        with self._told():
            found: float | None = self._db.execute(query, (fidelity,)).fetchone()[0]
        return found

    def keep_fpga(self, target: str, unit: str, measured: str, refused: str) -> None:
        """Keep what a unit takes on a device, in the place of what was known of the two; all are texts of the
        caller's. Of points it changes nothing."""
        with self._told(), self._transaction():
            self._db.execute(_FPGA_TABLE)
            self._db.execute(
                "INSERT OR REPLACE INTO fpga(target, unit, measured, refused, finished) "
                "VALUES(?, ?, ?, ?, ?)",
                (target, unit, measured, refused, time.time()),
            )

    def fpga(self) -> list[tuple[str, str]]:
        """What was kept by `keep_fpga`: `measured` and `refused`, in the order of device and unit."""
        with self._told():
            if not self._has("fpga"):
                return []
            query = "SELECT measured, refused FROM fpga ORDER BY target, unit"
            return [(measured, refused) for measured, refused in self._db.execute(query)]

    def keep_run(self, key: bytes, text: str) -> None:
        """Keep a text about the run of a point. Of points it changes nothing."""
        with self._told(), self._transaction():
            self._db.execute(_RUNS_TABLE)
            self._db.execute("INSERT OR REPLACE INTO runs VALUES(?, ?)", (key, zlib.compress(text.encode())))

    def run(self, key: bytes) -> str | None:
        """What was kept by `keep_run`."""
        with self._told():
            query = "SELECT result FROM runs WHERE key = ?"
            found = self._db.execute(query, (key,)).fetchone() if self._has("runs") else None
        return None if found is None else zlib.decompress(found[0]).decode()

    def _has(self, table: str) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

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
        except sqlite3.OperationalError as error:  # the disk is full, or another one writes for too long
            raise InputError(
                f"{self.path}: {error}; what was stored before is kept, and the same command resumes"
            ) from error
        except sqlite3.DatabaseError as error:  # no database, or one that was damaged
            raise InputError(
                f"{self.path}: {error}: move the file away, and the same sweep begins anew"
            ) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"can't make the folder {folder}: {(error.strerror or str(error)).lower()}"
        ) from None


def _prepare(db: sqlite3.Connection) -> None:
    """Write-ahead mode and the format's name; two processes may do so at once."""
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
    db.executescript(
        f"BEGIN IMMEDIATE; {_META} INSERT OR IGNORE INTO meta VALUES('format', '{FORMAT}'); COMMIT;"
    )
