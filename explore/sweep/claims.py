"""Which points are being evaluated by whom, where several sweeps write into one folder.

A claim is a courtesy, no lock: results are kept once whatever happens, and where claims can't be written or
read everything counts as free. So a sweep that dies holds up nobody: its claims lapse as soon as its process
is seen to be gone, or, where that can't be seen (another machine's or container's), some seconds after its
last sign of life. They have a file of their own, in which nothing needs to last.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from secrets import randbits
from threading import Event, Thread

from tilewright.explore.evaluation.points import DIGEST_BYTES

FILE = "claims.sqlite"
BEAT_S = 5.0
"""Between two signs of life."""
LEASE_S = 30.0
"""How long a sweep without one counts as alive."""
_WAIT_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS sweeps(
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, process INTEGER NOT NULL, beat REAL NOT NULL);
CREATE TABLE IF NOT EXISTS claims(id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL, keys BLOB NOT NULL);
"""


class Claims:
    """The claims of one sweep. `claim` and `release` belong to one thread; `close` ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db: sqlite3.Connection | None = None
        self._sweep = randbits(62)
        self._over = Event()
        self._beats = Thread(target=self._beat, name="claims", daemon=True)
        with suppress(sqlite3.Error):
            self._db = self._prepared()
            self._beats.start()

    def _prepared(self) -> sqlite3.Connection:
        db = _opened(self._path)
        try:
            db.executescript(f"PRAGMA synchronous = OFF; BEGIN IMMEDIATE; {_TABLES} COMMIT;")
            self._sign(db)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _sign(self, db: sqlite3.Connection) -> None:
        """A sign of life."""
        sweep = (self._sweep, socket.gethostname(), os.getpid(), time.time())
        db.execute("INSERT OR REPLACE INTO sweeps(id, host, process, beat) VALUES(?, ?, ?, ?)", sweep)

    def _beat(self) -> None:
        """One now and then; from a thread, as the other one may be busy with a point."""
        while not self._over.wait(BEAT_S):
            with suppress(sqlite3.Error), closing(_opened(self._path)) as db:
                self._sign(db)

    def claim(self, keys: Sequence[bytes]) -> tuple[int, set[bytes]]:
        """Claim those of some keys that no other living sweep has; the claim's number, and those."""
        if self._db is None:
            return 0, set(keys)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._sign(self._db)  # again: one that was suspended may have been given up
            mine = set(keys) - self._taken(self._db)
            added = self._db.execute(
                "INSERT INTO claims(sweep, keys) VALUES(?, ?)", (self._sweep, b"".join(mine))
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            return 0, set(keys)
        return int(added.lastrowid or 0), mine

    def _taken(self, db: sqlite3.Connection) -> set[bytes]:
        """What other sweeps have; those that are dead are forgotten."""
        others = db.execute("SELECT id, host, process, beat FROM sweeps WHERE id != ?", (self._sweep,))
        taken: set[bytes] = set()
        for sweep, host, process, beat in others.fetchall():
            if _is_alive(host, process, beat):
                for (packed,) in db.execute("SELECT keys FROM claims WHERE sweep = ?", (sweep,)):
                    starts = range(0, len(packed), DIGEST_BYTES)
                    taken.update(packed[start : start + DIGEST_BYTES] for start in starts)
            else:
                _forget(db, sweep)
        return taken

    def release(self, number: int) -> None:
        """Give up a claim: what it named is in the store, or won't be evaluated."""
        if self._db is not None and number:
            with suppress(sqlite3.Error):
                self._db.execute("DELETE FROM claims WHERE id = ?", (number,))

    def close(self) -> None:
        """Give up all of them."""
        self._over.set()
        if self._db is not None:
            self._beats.join()
            with suppress(sqlite3.Error):
                _forget(self._db, self._sweep)
            self._db.close()
            self._db = None


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)


def _forget(db: sqlite3.Connection, sweep: int) -> None:
    db.execute("DELETE FROM claims WHERE sweep = ?", (sweep,))
    db.execute("DELETE FROM sweeps WHERE id = ?", (sweep,))


def _is_alive(host: str, process: int, beat: float) -> bool:
    """Whether a sweep gave a sign of life lately and, on this machine, still runs."""
    if abs(time.time() - beat) > LEASE_S:
        return False
    if host != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
