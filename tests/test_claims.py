"""Claims: sweeps on one folder leave each other's points alone, and nobody waits for the dead."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

import tilewright as tw
from tests.sweeps import POINTS, rows, rows_so_far, space_text, start
from tilewright.explore.evaluation.points import grid, keys
from tilewright.explore.space.load import load_space
from tilewright.explore.sweep import claims as claiming
from tilewright.explore.sweep.claims import FILE, Claims

KEYS = [bytes([number]) * 16 for number in range(4)]
SLOW = space_text(112)
"""Points that take long enough for two sweeps to meet."""


def claim(folder: Path, wanted: list[bytes]) -> set[bytes]:
    """What a passer-by could claim."""
    other = Claims(folder)
    mine = other.claim(wanted)[1]
    other.close()
    return mine


def test_what_is_claimed_is_left_to_its_owner(tmp_path: Path) -> None:
    """Until it is released, or its owner is done; what is free is had."""
    one = Claims(tmp_path)
    number, mine = one.claim(KEYS[:2])
    assert mine == set(KEYS[:2])
    assert claim(tmp_path, KEYS) == set(KEYS[2:])
    one.release(number)
    assert claim(tmp_path, KEYS) == set(KEYS)
    one.claim(KEYS)
    assert claim(tmp_path, KEYS) == set()
    one.close()
    assert claim(tmp_path, KEYS) == set(KEYS)


def test_the_dead_own_nothing(tmp_path: Path) -> None:
    """A process that was killed while it held claims: they are free at once."""
    code = (
        "import sys, time; from pathlib import Path; from tilewright.explore.sweep.claims import Claims\n"
        f"Claims(Path(sys.argv[1])).claim([{KEYS[0]!r}]); print('claimed', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        assert claim(tmp_path, KEYS) == set(KEYS[1:])
        process.kill()
    assert claim(tmp_path, KEYS) == set(KEYS)


def test_who_gives_no_sign_of_life_owns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process can't be looked at, its last sign decides; the living go on giving them."""
    monkeypatch.setattr(claiming, "BEAT_S", 0.05)
    one = Claims(tmp_path)
    one.claim(KEYS)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE sweeps SET beat = 0")
    for _ in range(200):
        with sqlite3.connect(tmp_path / FILE) as db:
            if db.execute("SELECT beat FROM sweeps").fetchone()[0]:
                break
        time.sleep(0.05)
    assert claim(tmp_path, KEYS) == set()
    one.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("INSERT INTO sweeps VALUES(7, 'elsewhere', 1, ?)", (time.time(),))
        db.execute("INSERT INTO claims(sweep, keys) VALUES(7, ?)", (KEYS[0],))
    assert claim(tmp_path, KEYS) == set(KEYS[1:])
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE sweeps SET beat = beat - 31")
    assert claim(tmp_path, KEYS) == set(KEYS)


def test_claims_that_cant_be_kept_stop_nobody(tmp_path: Path) -> None:
    """A damaged file, a folder that can't be written to: everything counts as free."""
    (tmp_path / FILE).write_text("no database, " * 100)
    assert claim(tmp_path, KEYS) == set(KEYS)
    assert claim(tmp_path / "missing", KEYS) == set(KEYS)


def test_a_sweep_waits_for_what_another_one_is_at(space: Path, tmp_path: Path) -> None:
    """It does the rest first; what was given up without a result it then does itself."""
    folder = tmp_path / "study"
    space.write_text(space_text(16))
    folder.mkdir()
    loaded = load_space(space)
    key = keys(loaded.digest, "event")
    other = Claims(folder)
    other.claim([key(point.canonical) for point in list(grid(loaded.axes))[:3]])
    worker = Thread(target=tw.sweep, args=(space, folder), kwargs={"jobs": 1})
    worker.start()
    for _ in range(600):
        if rows_so_far(folder) == POINTS - 3:
            break
        time.sleep(0.05)
    worker.join(0.5)
    assert worker.is_alive()
    assert len(rows(folder)) == POINTS - 3
    other.close()
    worker.join(60)
    assert not worker.is_alive()
    assert len(rows(folder)) == POINTS


def evaluated(process: subprocess.Popen[str]) -> int:
    """How many points a sweep that ended says it evaluated."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found = re.search(r"points: (\d+) evaluated, (\d+) known already", said)
    assert found is not None, said
    assert int(found[1]) + int(found[2]) == POINTS
    return int(found[1])


def test_two_sweeps_share_the_work(space: Path, tmp_path: Path) -> None:
    """Two processes on one folder evaluate each point once between them, and each has a part."""
    folder = tmp_path / "study"
    space.write_text(SLOW)
    shares = [evaluated(process) for process in [start(space, folder), start(space, folder)]]
    assert sum(shares) == POINTS
    assert min(shares) > 0
    assert len(rows(folder)) == POINTS


def test_a_sweep_takes_over_from_one_that_was_killed(space: Path, tmp_path: Path) -> None:
    """Two sweeps share a folder, one is killed in the middle: the other does all that is left."""
    folder = tmp_path / "study"
    space.write_text(SLOW)
    one, two = start(space, folder), start(space, folder)
    while rows_so_far(folder) < 3:
        assert one.poll() is None, one.communicate()
        time.sleep(0.02)
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    assert evaluated(two) > 0
    assert len(rows(folder)) == POINTS
