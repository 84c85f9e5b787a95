"""The spool keeps every batch until it is acknowledged, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import floats, integers, sampled_from
from tests.support import spans

from roofleet_agent.errors import SpoolUnusable
from roofleet_agent.rows import table_of
from roofleet_agent.sending import spool as spool_module
from roofleet_agent.sending.dropping import Limits
from roofleet_agent.sending.spool import ROWS_PER_BATCH, Spool
from roofleet_proto.codec import decode_rows, encode_rows
from roofleet_proto.tables import TABLES


def readings(rows: int, first: int = 0) -> pa.Table:
    """Rows of readings, a second apart."""
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return table_of(
        "readings",
        [
            {"device_id": "d", "read_at": begin + dt.timedelta(seconds=first + n), "utilization": 0.5}
            for n in range(rows)
        ],
    )


def test_rows_are_cut_into_batches_of_a_few_thousand(tmp_path: Path) -> None:
    """10,000 rows become three batches with all of them, in order."""
    spool = Spool(tmp_path / "spool.sqlite")
    spool.write("spans", spans(10_000))
    parts = [decode_rows(b.arrow_ipc, TABLES["spans"]) for b in spool.pending()]
    assert [p.num_rows for p in parts] == [ROWS_PER_BATCH, ROWS_PER_BATCH, 10_000 - 2 * ROWS_PER_BATCH]
    assert pa.concat_tables(parts).equals(spans(10_000))


def test_a_batch_that_is_too_large_is_halved_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch is larger than a message, and no row is lost for it."""
    monkeypatch.setattr(spool_module, "MAX_BATCH_BYTES", 4_000)
    spool = Spool(tmp_path / "spool.sqlite")
    spool.write("spans", spans(100))
    batches = spool.pending(limit=1000)
    assert all(len(b.arrow_ipc) <= 4_000 for b in batches)
    assert pa.concat_tables([decode_rows(b.arrow_ipc, TABLES["spans"]) for b in batches]).equals(spans(100))


def test_a_single_row_that_fits_no_message_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused where it is written, and not tried for ever."""
    monkeypatch.setattr(spool_module, "MAX_BATCH_BYTES", 100)
    with pytest.raises(ValueError, match="one row of spans"):
        Spool(tmp_path / "spool.sqlite").write("spans", spans(1))


def test_two_openings_share_batches_and_identity_but_no_key(tmp_path: Path) -> None:
    """A second process on the file is the same agent, sees what is pending, and makes keys of its own."""
    first, second = Spool(tmp_path / "spool.sqlite"), Spool(tmp_path / "spool.sqlite")
    first.write("spans", spans(1))
    second.write("spans", spans(1))
    keys = [batch.key for batch in first.pending()]
    assert first.agent_id == second.agent_id
    assert len(set(keys)) == 2
    assert first.pending() == second.pending()


def test_a_file_rolled_back_makes_no_key_twice(tmp_path: Path) -> None:
    """After a power cut the file may forget its last batches; what comes then has other keys all the same."""
    path = tmp_path / "spool.sqlite"
    spool = Spool(path)
    spool.write("spans", spans(1))
    sent = spool.pending()[0].key
    spool.close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM batches")
        db.execute("DELETE FROM sqlite_sequence")
    again = Spool(path)
    again.write("spans", spans(1))
    assert again.pending()[0].sequence == sent[2]
    assert again.pending()[0].key != sent


def test_what_is_set_aside_is_out_of_the_way_and_kept(tmp_path: Path) -> None:
    """A batch nobody can take is no longer pending; the file holds it with the reason."""
    spool = Spool(tmp_path / "spool.sqlite")
    spool.write("spans", spans(1))
    spool.write("spans", spans(1))
    bad = spool.pending()[0].sequence
    spool.set_aside(bad, "no such table")
    assert bad not in [b.sequence for b in spool.pending()]
    assert spool.set_aside_reasons() == [(bad, "spans", "no such table")]
    assert spool.count() == 1


def test_a_full_spool_lets_go_of_the_oldest_readings_and_then_of_the_oldest_of_others(tmp_path: Path) -> None:
    """What is gone is counted by table and reason, and what is left fits the limit."""
    size = len(encode_rows(readings(1)))
    spool = Spool(tmp_path / "spool.sqlite", Limits(size_bytes=4 * size))
    for number in range(3):
        spool.write("readings", readings(1, first=number))
    spool.write("spans", spans(1))
    held = [b.table for b in spool.pending()]
    assert held == ["readings"] * (len(held) - 1) + ["spans"]
    for number in range(6):
        spool.write("spans", spans(1, first=number))
    assert "readings" not in [b.table for b in spool.pending()]
    assert spool.size_bytes() <= 4 * size
    gone = {(d.table, d.reason): d.rows for d in spool.dropped()}
    assert gone[("readings", "full")] == 3
    assert gone[("spans", "full")] == 7 - spool.count()


def test_a_reading_never_takes_the_place_of_a_run(tmp_path: Path) -> None:
    """Where only other rows are left to go, the reading is what goes."""
    spool = Spool(tmp_path / "spool.sqlite", Limits(size_bytes=2 * len(encode_rows(spans(1)))))
    spool.write("spans", spans(1))
    spool.write("spans", spans(1, first=1))
    spool.write("readings", readings(1))
    assert [b.table for b in spool.pending()] == ["spans", "spans"]
    assert [(d.table, d.rows) for d in spool.dropped()] == [("readings", 1)]


def test_what_waited_too_long_goes_and_what_a_clock_that_was_not_set_wrote_stays(tmp_path: Path) -> None:
    """Age is counted from the writing; a batch of 1970 was written before the clock was set."""
    spool = Spool(tmp_path / "spool.sqlite", Limits(age_s=3600))
    for at in (0.0, 1.7e9, None):
        spool.write("spans", spans(1))
        spool._db.execute("UPDATE batches SET written_at = ? WHERE sequence = ?", [at, spool.last_sequence()])
    spool._aged_at = 0.0
    spool.write("spans", spans(2))
    assert spool.count() == 3
    assert [(d.reason, d.rows) for d in spool.dropped()] == [("age", 1)]


def test_what_is_gone_is_reported_as_rows_once(tmp_path: Path) -> None:
    """The report is a batch like all others; the counters begin anew with it."""
    spool = Spool(tmp_path / "spool.sqlite")
    spool.lost("readings", 5, since=1.7e9)
    spool.lost("readings", 2, since=1.6e9)
    spool.report_dropped()
    spool.report_dropped()
    (batch,) = spool.pending()
    (row,) = decode_rows(batch.arrow_ipc, TABLES["losses"]).to_pylist()
    assert (row["table_name"], row["reason"], row["rows"]) == ("readings", "disk", 7)
    assert row["first_at"].timestamp() == 1.6e9
    assert spool.dropped() == []


def test_a_file_of_the_version_before_is_taken_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    """Identity and batches stay, and the bytes that it holds are known."""
    path = tmp_path / "spool.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE identity (agent_id TEXT NOT NULL); INSERT INTO identity VALUES ('old-agent');"
            "CREATE TABLE batches (sequence INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, "
            "table_name TEXT NOT NULL, rows INTEGER NOT NULL, arrow_ipc BLOB NOT NULL);"
        )
        db.execute("INSERT INTO batches VALUES (7, 3, 'spans', 1, ?)", [encode_rows(spans(1))])
    db.close()
    spool = Spool(path)
    assert [b.key for b in spool.pending()] == [("old-agent", 3, 7)]
    assert spool.size_bytes() == len(encode_rows(spans(1)))
    assert spool.replaced is None


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"no database at all" * 100),
        lambda path: sqlite3.connect(path).execute("CREATE TABLE recipes (soup TEXT)").connection.close(),
        lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.close(),
    ],
    ids=["bytes", "another program's", "of a newer version"],
)
def test_a_file_that_is_no_spool_is_kept_under_another_name(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    """It is said, nothing of it is lost, and a new spool takes its place."""
    path = tmp_path / "spool.sqlite"
    make(path)
    before = path.read_bytes()
    spool = Spool(path)
    spool.write("spans", spans(1))
    (aside,) = tmp_path.glob("spool.sqlite.aside-*")
    assert aside.read_bytes() == before
    assert aside.name in (spool.replaced or "")
    assert spool.count() == 1


@settings(max_examples=60, deadline=None)
@given(place=floats(0, 1, exclude_max=True), how=sampled_from(["cut", "flip"]), bit=integers(0, 7))
def test_whatever_byte_is_lost_or_changed_no_wrong_row_comes_out(place: float, how: str, bit: int) -> None:
    """A spool that is cut anywhere, or has any bit flipped, opens or is replaced; what it gives is what was
    written; and it takes new rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.sqlite"
        spool = Spool(path)
        for number in range(4):
            spool.write("spans", spans(20, first=20 * number))
        written = {b.arrow_ipc for b in spool.pending()}
        spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        spool.close()
        data = bytearray(path.read_bytes())
        at = int(place * len(data))
        if how == "cut":
            del data[at:]
        else:
            data[at] ^= 1 << bit
        path.write_bytes(data)
        again = Spool(path)
        for _ in range(3):  # what is damaged deep inside may be found at the first use
            with suppress(SpoolUnusable):
                assert {b.arrow_ipc for b in again.pending()} <= written
        for _ in range(2):
            with suppress(SpoolUnusable):
                again.write("spans", spans(1, first=1000))
                break
        assert encode_rows(spans(1, first=1000)) in {b.arrow_ipc for b in again.pending(limit=100)}
        again.close()


@pytest.mark.parametrize("stored", [True, False])
def test_rows_that_were_sent_are_lost_only_if_the_collector_says_so(tmp_path: Path, stored: bool) -> None:
    """A batch let go of after it was sent goes without rows, and is counted unless it was stored before."""
    size = len(encode_rows(spans(100)))
    spool = Spool(tmp_path / "spool.sqlite", Limits(size_bytes=2 * size))
    for _ in range(2):
        spool.write("spans", spans(100))
    first, second = spool.pending()
    assert spool.note_sent([first]) == [first]
    for _ in range(2):
        spool.write("spans", spans(100))
    assert spool.note_sent([first, second]) == []  # they are other ones by now
    assert [(b.sequence, b.given_up) for b in spool.pending()] == [(1, True), (3, False), (4, False)]
    assert [one.rows for one in spool.dropped()] == [100]  # of the second, which was never sent
    spool.acknowledge([1], stored=stored)
    assert [one.rows for one in spool.dropped()] == [100 if stored else 200]
    spool.acknowledge([3, 4])
    assert (spool.count(), spool.size_bytes()) == (0, 0)


class SpoolHistory(RuleBasedStateMachine):
    """Writes, acknowledgements and restarts in any order; the model is the set of pending first rows."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spool.sqlite"
        self.spool = Spool(self.path)
        self.expected: dict[int, int] = {}
        self.written = 0

    @rule(rows=integers(1, 3))
    def write(self, rows: int) -> None:
        before = {b.sequence for b in self.spool.pending(limit=1000)}
        self.spool.write("spans", spans(rows, first=self.written))
        new = {b.sequence for b in self.spool.pending(limit=1000)} - before
        assert len(new) == 1
        self.expected[new.pop()] = self.written
        self.written += rows

    @rule(place=integers(0, 100))
    def acknowledge(self, place: int) -> None:
        if self.expected:
            sequence = sorted(self.expected)[place % len(self.expected)]
            self.spool.acknowledge([sequence, sequence])
            del self.expected[sequence]

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path)

    @rule()
    def crash(self) -> None:
        self.spool = Spool(self.path)  # the old one never closes its file

    @invariant()
    def pending_is_what_is_not_acknowledged(self) -> None:
        if not hasattr(self, "spool"):
            return
        found = {
            b.sequence: decode_rows(b.arrow_ipc, TABLES["spans"]).column("start_ns")[0].as_py()
            for b in self.spool.pending(limit=1000)
        }
        assert found == self.expected
        assert self.spool.count() == len(self.expected)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            self.folder.cleanup()


TestSpoolHistory = SpoolHistory.TestCase
TestSpoolHistory.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
