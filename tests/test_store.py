"""The store of a study: rows are there whole, once, and stay."""

import sqlite3
from pathlib import Path

import pytest

from tilewright.description.errors import InputError
from tilewright.explore.evaluate import Outcome
from tilewright.explore.store import FILE, SpaceRecord, Store

RECORD = SpaceRecord("digest", "definition", "space.yaml", "/", "base", "model")
DONE = Outcome("done", {"cycles": 7, "latency_s": 0.1 + 0.2}, "", 0.5)
FAILED = Outcome("failed", None, "no tile fits", 0.1)
KEY = b"0" * 16


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    """Figures to the last bit, the point, the error; also in another process's eyes."""
    with Store(tmp_path, create=True) as store:
        number, before = store.use(RECORD)
        assert before is None
        store.put(number, "event", [(KEY, '{"arch.array.rows":8}', DONE), (b"1" * 16, "{}", FAILED)])
    with Store(tmp_path) as again:
        first, second = again.rows(number)
        assert (first.row, first.values, first.status) == (DONE.row, {"arch.array.rows": 8}, "done")
        assert (second.row, second.note, second.status) == (None, "no tile fits", "failed")
        assert again.last_space() == (number, RECORD)
        assert again.counts(number) == {("event", "done"): 1, ("event", "failed"): 1}


def test_what_is_done_stays(tmp_path: Path) -> None:
    """A second writer changes a failed row into a finished one, never the other way round."""
    with Store(tmp_path, create=True) as one, Store(tmp_path, create=True) as two:
        number, _ = one.use(RECORD)
        for store, outcome in ((one, FAILED), (two, DONE), (one, FAILED)):
            store.put(number, "event", [(KEY, "{}", outcome)])
        assert [row.row for row in one.rows()] == [DONE.row]


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """What can't be written takes its batch with it, and the store goes on working."""
    with Store(tmp_path, create=True) as store:
        number, _ = store.use(RECORD)
        with pytest.raises(TypeError):
            store.put(number, "event", [(KEY, "{}", DONE), (b"1", "{}", Outcome("done", {"x": {1}}, "", 0))])  # type: ignore[dict-item]
        assert list(store.rows()) == []
        store.put(number, "event", [(KEY, "{}", DONE)])
        assert [row.row for row in store.rows()] == [DONE.row]


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
    with pytest.raises(InputError, match="written by another version of tilewright; name another folder"):
        Store(tmp_path)
