"""`roofleet collector backup`: of a collector that runs, and of a folder that nobody holds."""

from __future__ import annotations

from pathlib import Path

import grpc
from tests.support import batch, collector, laid, roofleet, spans

from roofleet_collector.store import DuckDBStore
from roofleet_proto.services import PUSH


def spans_in(folder: Path) -> int:
    """Rows of `spans` in a data folder."""
    store = DuckDBStore(laid(folder))
    try:
        return int(store.query("SELECT count(*) FROM spans").read_all().column(0)[0].as_py())
    finally:
        store.close()


def test_a_copy_is_made_where_it_was_asked_for(tmp_path: Path) -> None:
    """While a collector runs and after it has ended; a file that is there is left as it is, and nothing else
    lies about in the folder."""
    data, copies = tmp_path / "data", [tmp_path / name / "roofleet.duckdb" for name in ("live", "ended")]
    with collector(data) as running:
        with grpc.insecure_channel(running.grpc) as channel:
            assert len(list(PUSH.client(channel)(iter([batch(spans(10), 1)]), timeout=60))) == 1
        answer = roofleet("collector", "backup", str(copies[0]), "--data", str(data), data=data)
        assert (answer.returncode, answer.stdout) == (0, f"1 batches in {copies[0]}\n"), answer.stderr
        again = roofleet("collector", "backup", str(copies[0]), data=data)
        assert again.returncode == 2
        assert "is there already" in again.stderr
    answer = roofleet("collector", "--data", str(data), "backup", str(copies[1]), data=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert [spans_in(copy.parent) for copy in copies] == [10, 10]
    assert list((data / "backups").iterdir()) == []
