"""The store of a study: rows are there whole, once, and stay."""

import json
import sqlite3
from pathlib import Path

import pytest

from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import Outcome
from tilewright.explore.sweep.store import FILE, SpaceRecord, Store

RECORD = SpaceRecord("digest", "definition", "space.yaml", "/", "base", "model")
DONE = Outcome("done", {"cycles": 7, "latency_s": 0.1 + 0.2}, "", 0.5)
FAILED = Outcome("failed", None, "no tile fits", 0.1)
KEY = b"0" * 16


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    """Figures to the last bit, the point, the error; also in another process's eyes."""
    with Store(tmp_path, create=True) as store:
        number, before = store.use(RECORD)
        assert before is None
        found = [(b"1" * 16, 2, "{}", FAILED), (KEY, 1, '{"arch.array.rows":8}', DONE)]
        store.put(number, "event", found)
    with Store(tmp_path) as again:
        first, second = again.rows(number)
        assert (first.number, second.number) == (1, 2)
        assert (first.row, first.values, first.status) == (DONE.row, {"arch.array.rows": 8}, "done")
        assert (second.row, second.note, second.status) == (None, "no tile fits", "failed")
        assert again.last_space() == (number, RECORD)
        assert again.counts(number) == {("event", "done"): 1, ("event", "failed"): 1}


def test_what_is_done_stays(tmp_path: Path) -> None:
    """A second writer changes a failed row into a finished one, never the other way round."""
    with Store(tmp_path, create=True) as one, Store(tmp_path, create=True) as two:
        number, _ = one.use(RECORD)
        for store, outcome in ((one, FAILED), (two, DONE), (one, FAILED)):
            store.put(number, "event", [(KEY, 1, "{}", outcome)])
        assert [row.row for row in one.rows(number)] == [DONE.row]


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """What can't be written takes its batch with it, and the store goes on working."""
    with Store(tmp_path, create=True) as store:
        number, _ = store.use(RECORD)
        broken = Outcome("done", {"x": {1}}, "", 0)  # type: ignore[dict-item]
        with pytest.raises(TypeError):
            store.put(number, "event", [(KEY, 1, "{}", DONE), (b"1", 2, "{}", broken)])
        assert list(store.rows(number)) == []
        store.put(number, "event", [(KEY, 1, "{}", DONE)])
        assert [row.row for row in store.rows(number)] == [DONE.row]


def test_folders_that_hold_no_study(tmp_path: Path) -> None:
    """Missing, foreign, damaged, or no folder: said, with what to do."""
    with pytest.raises(InputError, match=r"no study here \(no study\.sqlite\); `tilewright sweep"):
        Store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't make the folder .*file: file exists"):
        Store(tmp_path / "file", create=True)
    (tmp_path / FILE).write_text("no database, " * 100)
    with pytest.raises(InputError, match="file is not a database"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    Store(tmp_path, create=True).close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE meta SET value = '99'")
    for create in (False, True):
        with pytest.raises(InputError, match=r"written by another version .* sweep into another folder"):
            Store(tmp_path, create=create)


def test_a_store_of_an_older_version_is_left_as_it_is(tmp_path: Path) -> None:
    """One whose rows have no number of their own is named as such, also where it would be written to."""
    with sqlite3.connect(tmp_path / FILE) as db:
        db.executescript(
            "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "INSERT INTO meta VALUES('format', '1');"
            "CREATE TABLE points(id INTEGER PRIMARY KEY, space INTEGER);"
        )
        before = db.execute("SELECT sql FROM sqlite_master").fetchall()
    for create in (False, True):
        with pytest.raises(InputError, match="written by another version of tilewright, which kept points"):
            Store(tmp_path, create=create)
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT sql FROM sqlite_master").fetchall() == before


def test_what_is_damaged_begins_anew_once_it_is_moved_away(tmp_path: Path) -> None:
    """No resuming is promised for a file that is no database, nor for one with a page of something else; and
    what the message asks for works."""
    with Store(tmp_path, create=True) as store:
        number, _ = store.use(RECORD)
        rows = [(bytes([n]) * 16, n, json.dumps({"k": n * "long "}), DONE) for n in range(1, 200)]
        store.put(number, "event", rows)
    text = bytearray((tmp_path / FILE).read_bytes())
    text[4096:] = b"x" * (len(text) - 4096)
    for damaged in (bytes(text), b"no database, " * 100):
        (tmp_path / FILE).write_bytes(damaged)
        told = "move the file away, and the same sweep begins anew"
        with pytest.raises(InputError, match=told) as error, Store(tmp_path, create=True) as store:
            store.use(RECORD)
        assert "resumes" not in str(error.value)
    (tmp_path / FILE).rename(tmp_path / "away")
    with Store(tmp_path, create=True) as store:
        assert list(store.rows(store.use(RECORD)[0])) == []


def test_another_number_takes_a_rows_place(tmp_path: Path) -> None:
    """Adopted rows have the numbers of the space that adopts them; one that no longer fits leaves the space,
    and stays in the store."""
    with Store(tmp_path, create=True) as store:
        number, _ = store.use(RECORD)
        store.put(number, "event", [(bytes([n]) * 16, n, "{}", DONE) for n in (1, 2, 3)])
        store.adopt({b"\1" * 16: 7}, 5)
        assert [row.number for row in store.rows(5)] == [7]
        store.dismiss(number, {b"\2" * 16: 2, b"\4" * 16: 3})
        assert [row.number for row in store.rows(number)] == [2]
        assert set(store.known([b"\3" * 16])) == {b"\3" * 16}


def test_a_points_row_is_the_simulated_one(tmp_path: Path) -> None:
    """Of bound and simulation under one number, whichever came last."""
    with Store(tmp_path, create=True) as store:
        number, _ = store.use(RECORD)
        for key, fidelity in ((b"1", "event"), (b"2", "analytic")):
            store.put(number, fidelity, [(key, 4, "{}", DONE)])
        found = store.row(number, 4)
        assert found is not None
        assert found.fidelity == "event"
        assert store.row(number + 1, 4) is None
