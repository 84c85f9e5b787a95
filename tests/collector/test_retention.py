"""What is older than it is kept for goes step by step; nothing is lost or doubled, and the rest stays."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.collector.test_figures import KINDS, answers, begin, put, rows_of
from tests.support import spans

from roofleet_agent.rows import table_of
from roofleet_collector.metrics import Metrics
from roofleet_collector.policy import Policy
from roofleet_collector.retaining import Retaining
from roofleet_collector.store import Append, DuckDBStore, duckdb_store, retention, space
from roofleet_proto.records import RunChange

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=40)
"""When runs that are stored now are older than a month."""
MONTH = timedelta(days=30)
NOTHING = Policy(readings=None, readings_minutes=None)
SPANS = Policy(readings=None, readings_minutes=None, spans=MONTH)
ALL = Policy(spans=MONTH)


def retain(store: DuckDBStore, policy: Policy, now: datetime = LATER) -> dict[tuple[str, str], int]:
    """Does all that the policy asks for; the rows of each table that something was done to."""
    rows: dict[tuple[str, str], int] = {}
    for done in store.retain(policy, now):
        rows[done.table, done.what] = rows.get((done.table, done.what), 0) + done.rows
    return rows


def asked(store: DuckDBStore, sql: str) -> list[dict[str, Any]]:
    """The rows of a statement."""
    found: list[dict[str, Any]] = store.query(sql).read_all().to_pylist()
    return found


def readings(count: int, began: datetime = NOW - timedelta(days=8)) -> list[dict[str, Any]]:
    """One a second of a device."""
    return [
        {"device_id": "d", "read_at": began + timedelta(seconds=number), "power_w": float(number)}
        for number in range(count)
    ]


@pytest.fixture
def kinds(store: DuckDBStore) -> DuckDBStore:
    """A run of each kind."""
    begin(store)
    for run_id, more in KINDS.items():
        put(store, **rows_of(run_id, **more))
    return store


def test_views_answer_to_the_digit_without_the_spans(kinds: DuckDBStore) -> None:
    """All but the view that has rows of spans, which says so, and the word of when they went; also after the
    formulas have changed, of which such a run keeps the figures and their version."""
    before = answers(kinds)
    assert retain(kinds, SPANS) == {("spans", "rolled up"): 1568}
    kinds.close()
    connection = duckdb.connect(str(kinds.path))
    connection.execute("UPDATE run_figures SET formula_version = 0")
    connection.close()
    again = DuckDBStore(kinds.path.parent)
    try:
        after = answers(again)
        versions = asked(again, "SELECT run_id, formula_version FROM run_figures")
        again.rederive("measured", table_of("op_costs", rows_of("measured")["op_costs"])).result()
        assert asked(again, "SELECT count(*) AS n FROM phase_figures WHERE run_id = 'measured'") == [{"n": 2}]
    finally:
        again.close()
    assert {row["run_id"] for row in versions if row["formula_version"]} == {"counted"}
    went = {row["run_id"]: row.pop("spans_let_go_at") for row in after["run_summary"]}
    assert {run_id for run_id, at in went.items() if at is None} == {"counted"}
    for row in before["run_summary"]:
        assert row.pop("spans_let_go_at") is None
    assert (len(before.pop("layer_steps")), after.pop("layer_steps")) == (1568, [])
    for view, rows in before.items():
        assert after[view] == rows, view


def test_pinned_runs_outlive_retention(kinds: DuckDBStore) -> None:
    """With all their rows; so do the spans of the run that one took turns with, since each step of the one is
    held against one of the other. Unpinned they go as others do."""
    kinds.change_run(RunChange("one-of-turns", pinned=True)).result()
    kinds.change_run(RunChange("again", pinned=True)).result()
    retain(kinds, SPANS)
    left = "SELECT DISTINCT run_id FROM spans ORDER BY run_id"
    assert [row["run_id"] for row in asked(kinds, left)] == ["again", "one-of-turns", "other-of-turns"]
    assert retain(kinds, Policy(runs=MONTH)) == {("runs", "deleted"): len(KINDS) - 2}
    pinned = [{"run_id": "again", "pinned": True}, {"run_id": "one-of-turns", "pinned": True}]
    assert asked(kinds, "SELECT run_id, pinned FROM run_summary ORDER BY run_id") == pinned
    kinds.change_run(RunChange("again", pinned=False)).result()
    assert retain(kinds, Policy(runs=MONTH)) == {("runs", "deleted"): 1}


def test_a_run_that_was_pinned_after_it_was_found_stays(kinds: DuckDBStore) -> None:
    """The step looks again in its own transaction."""
    steps = kinds.retain(Policy(runs=MONTH, readings=None), LATER)
    first = next(steps)
    (some, *_) = asked(kinds, "SELECT run_id FROM runs")
    kinds.change_run(RunChange(some["run_id"], pinned=True)).result()
    rest = sum(done.rows for done in steps)
    assert (first.rows + rest, asked(kinds, "SELECT run_id FROM runs")) == (len(KINDS) - 1, [some])


def test_runs_that_go_on_and_those_that_rows_came_of_lately_are_left_alone(store: DuckDBStore) -> None:
    """A run counts from when it ended, or from when its last rows came: a spool may have held them long."""
    begin(store)
    put(store, **rows_of("late"))
    put(store, **rows_of("goes on", status="running", started_at=NOW))
    assert retain(store, Policy(runs=MONTH, spans=MONTH, readings=None), NOW) == {}
    store.settle()
    assert retain(store, Policy(runs=timedelta(hours=1), readings=None), NOW + timedelta(hours=2)) == {
        ("runs", "deleted"): 1
    }
    assert asked(store, "SELECT run_id FROM runs") == [{"run_id": "goes on"}]


def test_what_is_sent_again_after_it_went_is_not_stored_again(store: DuckDBStore) -> None:
    """Batches that were acknowledged are known by their keys, whatever became of their rows; spans of a run
    whose spans were let go that come late are taken, left out and counted."""
    begin(store)
    put(store, **rows_of("r"))
    sent = [
        Append({"readings": table_of("readings", readings(100))}, ("a", 1, 1)),
        Append({"spans": spans(7, "r")}, ("a", 1, 2)),
    ]
    for append in sent:
        assert not store.append(append).result().duplicate
    retain(store, ALL)
    for append in sent:
        assert store.append(append).result().duplicate
    figures = asked(store, "FROM layer_figures ORDER BY ALL")
    late = store.append(Append({"spans": spans(5, "r"), "readings": sent[0].rows["readings"]}, ("a", 1, 3)))
    assert not late.result().duplicate
    assert asked(store, "SELECT count(*) AS n FROM spans") == [{"n": 0}]
    assert asked(store, "FROM layer_figures ORDER BY ALL") == figures
    retain(store, ALL)
    assert asked(store, "SELECT sum(readings)::INT AS n FROM reading_history") == [{"n": 200}]
    left_out = "SELECT table_name, rows FROM retention WHERE what = 'left out'"
    assert asked(store, left_out) == [{"table_name": "spans", "rows": 5}]


def snapshots(store: DuckDBStore, to: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    """Makes copies of what lies on the disk whenever retention has done a part of something: what a process
    that is killed there leaves."""
    made: list[Path] = []

    def copy() -> None:
        made.append(to / str(len(made)))
        made[-1].mkdir(parents=True)
        for file in store.path.parent.glob("roofleet.duckdb*"):
            shutil.copy(file, made[-1])

    def around(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def work(*given: Any) -> Any:
            copy()
            result = real(*given)
            copy()
            return result

        patch.setattr(owner, name, work)

    around(retention, "roll_up")
    around(retention, "let_spans_go")
    around(duckdb_store, "checkpoint")
    around(space, "_stored_again")
    committed = store._writer._committed
    patch.setattr(store._writer, "_committed", lambda: (copy(), committed()))
    return made


def test_a_process_that_is_killed_anywhere_is_taken_up_where_it_was(
    store: DuckDBStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a step had done by then, the next collector does the rest, and nothing twice."""
    begin(store)
    put(store, **rows_of("r"))
    put(store, readings=readings(200), steps=[])
    put(store, readings=readings(50, NOW - timedelta(days=120)))
    monkeypatch.setattr(space, "LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(space, "BEGIN_SHARE", 0.0)
    monkeypatch.setattr(space, "END_SHARE", 0.0)
    with monkeypatch.context() as patch:
        made = snapshots(store, tmp_path / "killed", patch)
        retain(store, ALL)
        for _ in store.give_back():
            pass
    looked_at = (
        "FROM reading_history ORDER BY ALL",
        "FROM layer_iterations ORDER BY ALL",
        "SELECT table_name, what, rows FROM retention ORDER BY ALL",
        "FROM layer_summary ORDER BY ALL",
        "SELECT count(*) AS n FROM spans",
    )
    expected = [asked(store, sql) for sql in looked_at]
    assert len(made) > 8
    for folder in made:
        again = DuckDBStore(folder)
        try:
            retain(again, ALL)
            assert [asked(again, sql) for sql in looked_at] == expected, folder.name
        finally:
            again.close()


def test_logs_go_by_their_age(store: DuckDBStore) -> None:
    """Jobs that have ended, the audit, what agents lost, and hours of readings; an open job stays."""
    old, new = NOW - timedelta(days=50), NOW
    job = {"request": "{}", "submitted_at": old}
    put(
        store,
        jobs=[
            job | {"job_id": "ended", "status": "done", "finished_at": old},
            job | {"job_id": "open", "status": "queued"},
            job | {"job_id": "just ended", "status": "done", "finished_at": new},
        ],
        losses=[
            {"loss_id": str(at), "agent_id": "a", "table_name": "spans", "reason": "full", "rows": 1,
             "batches": 1, "first_at": at, "last_at": at} for at in (old, new)
        ],
        audit=[
            {"happened_at": at, "identity": "i", "what": "SQL", "outcome": "refused", "times": 1}
            for at in (old, new)
        ],
        readings=readings(3, NOW - timedelta(days=200)),
    )  # fmt: skip
    policy = Policy(jobs=MONTH, audit=MONTH, losses=MONTH, readings_hours=timedelta(days=150))
    done = retain(store, policy, NOW + timedelta(minutes=1))
    assert {key: rows for key, rows in done.items() if key[1] == "deleted"} == {
        (table, "deleted"): 1 for table in ("rolled_readings", "jobs", "losses", "audit")
    }
    assert [row["job_id"] for row in asked(store, "SELECT job_id FROM jobs ORDER BY job_id")] == [
        "just ended",
        "open",
    ]


def test_a_pass_says_what_it_did_and_one_that_fails_is_tried_again(
    store: DuckDBStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in the log for a pass that did something, none for another; figures for Prometheus."""
    caplog.set_level(logging.INFO)
    metrics = Metrics()
    keeper = Retaining(store, Policy(), metrics)
    put(store, readings=readings(100))
    keeper.look(NOW)
    keeper.look(NOW)
    said = [record.message for record in caplog.records if "retention" in record.message]
    assert len(said) == 1
    assert said[0].startswith("retention: 100 rows of readings rolled up, in ")
    labels = {"table": "readings", "what": "rolled up"}
    assert metrics.registry.get_sample_value("roofleet_collector_retention_rows_total", labels) == 100
    assert metrics.registry.get_sample_value("roofleet_collector_file_bytes") == store.size().bytes
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("no space left")
        keeper._stopping.set()

    monkeypatch.setattr("roofleet_collector.retaining.PERIOD_S", 0.0)
    monkeypatch.setattr(keeper, "look", look)
    keeper.start()
    keeper._thread.join(60)
    assert len(looks) == 2
    assert "no space left" in caplog.text


FILL = """
INSERT INTO spans SELECT 'r{number}', 'decode', i, i, 'p' || (random() * 1e6)::INT, (random() * 1e12)::BIGINT,
    (random() * 1e12)::BIGINT, NULL, i FROM range(40000) t(i);
INSERT INTO run_labels SELECT 'r{number}.' || i, md5(random()::VARCHAR), NULL, NULL FROM range(4000) t(i);
CHECKPOINT
"""


@pytest.fixture
def full(tmp_path: Path) -> Iterator[DuckDBStore]:
    """A store with rows of six runs one after the other, and between them rows of a table with a key."""
    DuckDBStore(tmp_path).close()
    connection = duckdb.connect(str(tmp_path / "roofleet.duckdb"))
    for number in range(6):
        connection.execute(FILL.format(number=number))
    connection.execute("INSERT INTO runs BY NAME SELECT 'r5.0' AS run_id, 'h' AS host_id, 'd' AS device_id, "
                       "'m' AS model_id, 'done' AS status, now() AS started_at, 'fp32' AS dtype, 'base' AS "
                       "variant, 'own' AS weights, 'e' AS engine, 1 AS batch_size, 1 AS prompt_tokens, 1 AS "
                       "new_tokens, 'last' AS logits, 1 AS iterations, 0 AS warmup")  # fmt: skip
    connection.close()
    opened = DuckDBStore(tmp_path)
    yield opened
    opened.close()


def test_space_is_given_back_while_rows_are_read_and_come_in(
    full: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file gets shorter by about what was deleted; what is left is the same, row for row, also for one
    who began to read before; a key is still one."""
    monkeypatch.setattr(space, "LEAST_FREE_BYTES", 1024**2)
    left = "SELECT count(*) AS n, bit_xor(hash(s))::VARCHAR AS h FROM spans s WHERE run_id IN ('r4', 'r5')"
    labels = "SELECT count(*) AS n, bit_xor(hash(l))::VARCHAR AS h FROM run_labels l"
    expected = asked(full, left), asked(full, labels)
    whole = full.size()
    full.delete_runs([f"r{number}" for number in range(4)], to_come=True).result()
    reader = None
    for step, _ in enumerate(full.give_back()):
        if step == 1:
            reader = full.query("SELECT start_ns FROM spans")
            full.append(Append({"spans": spans(10, "new")}, ("a", 1, 1))).result()
    assert reader is not None
    assert reader.read_all().num_rows == 2 * 40_000
    for _ in full.give_back():  # what the reader held is free now
        pass
    assert (asked(full, left), asked(full, labels)) == expected
    assert asked(full, "SELECT count(*) AS n FROM spans WHERE run_id = 'new'") == [{"n": 10}]
    assert full.size().bytes < 0.8 * whole.bytes
    assert full.size().bytes == full.path.stat().st_size - 3 * 4096
    for name in ("a", "b"):
        assert full.change_run(RunChange("r5.0", name=name)).result()
    assert asked(full, "SELECT name FROM run_labels WHERE run_id = 'r5.0'") == [{"name": "b"}]


def test_a_file_that_is_full_is_left_alone(full: DuckDBStore) -> None:
    """Nothing is moved where nothing was deleted."""
    assert not list(full.give_back())
