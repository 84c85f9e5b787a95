"""A store whose file or log was damaged: it starts, says what is missing, and deletes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import spans

from roofleet_collector.errors import StoreDamaged, StoreUnreadable
from roofleet_collector.store import Append, DuckDBStore
from roofleet_collector.store.mending import LOG_NAME, open_mended

FILE = "roofleet.duckdb"
BATCHES, IN_THE_FILE = 20, 5


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a collector that was killed leaves it: 5 batches in the file, 15 in the log."""
    live, folder = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("killed") / "data"
    store = DuckDBStore(live)
    for sequence in range(1, BATCHES + 1):
        store.append(Append({"spans": spans(10, first=10 * sequence)}, ("a", 1, sequence))).result()
        if sequence == IN_THE_FILE:
            store.close()
            store = DuckDBStore(live)
    store._kept.write(BATCHES, now=True)
    shutil.copytree(live, folder)
    store.close()
    return folder


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(killed, tmp_path / "data"))


def batches(store: DuckDBStore) -> int:
    """Batches whose rows are stored, all of them; and their keys are the same."""
    count = "SELECT count(*) AS rows, count(DISTINCT start_ns) AS places FROM spans"
    row = store.query(count).read_all().to_pylist()[0]
    keys = store.query("SELECT sum(last_sequence - first_sequence + 1)::BIGINT AS n FROM ingest_log")
    assert row["rows"] == row["places"] == 10 * (keys.read_all().to_pylist()[0]["n"] or 0)
    return int(row["rows"]) // 10


def flip(file: Path, place: float) -> None:
    """One bit of the file is another, at this share of its length."""
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 0x40
    file.write_bytes(data)


def cut(file: Path, place: float) -> None:
    """The file ends at this share of its length."""
    os.truncate(file, int(file.stat().st_size * place))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped byte of the log": lambda folder: flip(folder / LOG_NAME, 0.5),
    "a flipped byte at the log's end": lambda folder: flip(folder / LOG_NAME, 0.999),
    "a flipped byte at the log's beginning": lambda folder: flip(folder / LOG_NAME, 0.0005),
    "a log that was cut": lambda folder: cut(folder / LOG_NAME, 0.5),
    "a log that is empty": lambda folder: cut(folder / LOG_NAME, 0),
    "a log that is gone": lambda folder: (folder / LOG_NAME).unlink(),
    "a flipped byte of the file": lambda folder: flip(folder / FILE, 0.0001),
    "a flipped byte of the file's header": lambda folder: flip(
        folder / FILE, 5000 / (folder / FILE).stat().st_size
    ),
    "a file that was cut": lambda folder: cut(folder / FILE, 0.5),
    "a file that is empty": lambda folder: cut(folder / FILE, 0),
    "a foreign file": lambda folder: [(folder / FILE).write_bytes(b"a letter " * 999), None][1],
    "a file that is gone": lambda folder: (folder / FILE).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_set_aside_and_survived(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read is there, whole batches with their keys; every byte that was found is still in the
    folder; and the next start has nothing more to say."""
    DAMAGES[damage](folder)
    found = {(folder / name).read_bytes() for name in (FILE, LOG_NAME) if (folder / name).exists()}
    store = open_mended(folder, 0)
    there = batches(store)
    assert there < BATCHES
    if "log" in damage:
        assert there >= IN_THE_FILE
    assert [record for record in caplog.records if record.levelname == "ERROR"]
    assert "lost" in caplog.text or "are not in" in caplog.text or "set aside" in caplog.text
    if (folder / LOG_NAME).exists() or "gone" not in damage:
        left = {file.read_bytes() for file in folder.iterdir()}
        kept = {data for data in found if data in left}
        assert len(found - kept) <= 1  # the file that is open, whose rows were all read
    assert not store.append(Append({"spans": spans(1)}, ("a", 2, 1))).result().duplicate
    store.close()
    caplog.clear()
    again = open_mended(folder, 0)
    assert not caplog.records
    assert not again.append(Append({"spans": spans(1)}, ("a", 2, 2))).result().duplicate
    again.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_strict_refuses_and_touches_nothing_that_is_bad(folder: Path, damage: str) -> None:
    """With the reason, and again when it is asked again."""
    DAMAGES[damage](folder)
    for _ in range(2):
        with pytest.raises(StoreDamaged):
            open_mended(folder, 0, strict=True)


def test_a_log_that_is_whole_is_replayed_without_a_word(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that was killed and not damaged has everything, and no copies lie about."""
    store = open_mended(folder, 0, strict=True)
    assert batches(store) == BATCHES
    store.close()
    assert not caplog.records
    assert {file.name for file in folder.iterdir()} == {FILE, "roofleet.kept.json"}


def test_an_older_copy_is_said(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Put back over a newer file it starts, and tells how many batches it lacks."""
    store = DuckDBStore(folder)
    store.backup(tmp_path / "copy.duckdb")
    for sequence in range(100, 107):
        store.append(Append({"spans": spans(10, first=10 * sequence)}, ("a", 1, sequence))).result()
    store.close()
    shutil.copy(tmp_path / "copy.duckdb", folder / FILE)
    store = open_mended(folder, 0)
    assert "7 batches that were acknowledged" in caplog.text
    assert batches(store) == BATCHES
    store.close()


def test_others_than_a_collector_are_told_what_to_do(folder: Path) -> None:
    """A run or a query does not mend: one line says who does."""
    flip(folder / LOG_NAME, 0.5)
    with pytest.raises(StoreUnreadable, match="`roofleet collector` on this folder sets aside") as caught:
        DuckDBStore(folder)
    assert "\n" not in str(caught.value)
