"""The spool keeps every batch until it is acknowledged, whatever happens in between."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import integers
from tests.support import spans

from roofleet_agent.sending import spool as spool_module
from roofleet_agent.sending.spool import ROWS_PER_BATCH, Spool
from roofleet_proto.codec import decode_rows
from roofleet_proto.tables import TABLES


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
