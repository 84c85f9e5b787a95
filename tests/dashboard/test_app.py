"""The app and its server: nothing is asked early, everything is local, and it starts and stops cleanly."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import textwrap
import threading
import urllib.request
from collections.abc import Sequence

import pyarrow as pa
import pytest
from tests.dashboard.data import Fleet, StoreSource
from tests.processes import running
from tests.support import eventually

from roofleet_dashboard.app import PAGES, create_app, prepare_server, serve
from roofleet_dashboard.pages.network_view import NetworkView
from roofleet_dashboard.pages.roofline_view import RooflineView
from roofleet_dashboard.source import SourceError
from roofleet_dashboard.state import NetworkState, RooflineState, RunPhase


class NeverAsked:
    """A source that must not be asked."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Fails."""
        raise AssertionError(f"asked {sql}")


def test_making_the_app_asks_nothing() -> None:
    """The app and the frame of every page are made before the collector is there."""
    app = create_app(NeverAsked())
    assert app.title == "Roofleet"
    for page in PAGES:
        assert page.layout("?run=x&open=y")


def test_the_first_page_loads_nothing_from_elsewhere() -> None:
    """Every script and style of the page is the server's own."""
    text = create_app(NeverAsked()).server.test_client().get("/").text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", text)
    assert loaded
    assert not [address for address in loaded if "//" in address]


def test_a_server_can_be_started_and_stopped() -> None:
    """It answers while it runs; after `stop` the port is free."""
    server = prepare_server(create_app(NeverAsked()), port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=120) as answer:
            assert "Roofleet" in answer.read().decode()
    finally:
        server.stop()
        thread.join(10)
    assert not thread.is_alive()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_a_taken_port_is_named() -> None:
    """Where another program listens, the error says which address and what to do."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}.*choose another port"):
            serve(create_app(NeverAsked()), "127.0.0.1", port)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly(sent: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the server with status 0 and without a traceback."""
    program = """
        import roofleet_dashboard.app as app
        class Nothing:
            def query(self, sql, parameters=()): raise AssertionError
        made = app.create_app(Nothing())
        print("ready", flush=True)
        app.serve(made, "127.0.0.1", 0)
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running("-c", textwrap.dedent(program), **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        eventually(lambda: _sleeps(process.pid))
        process.send_signal(sent)
        _, errors = process.communicate(timeout=240)
        assert (process.returncode, errors) == (0, "")


def _sleeps(pid: int) -> bool:
    """Whether the process waits in its loop: its threads are all there."""
    from pathlib import Path

    tasks = Path(f"/proc/{pid}/task")
    return not tasks.exists() or len(list(tasks.iterdir())) > 8


def test_the_latest_run_is_shown_by_default(fleet: Fleet) -> None:
    """Without a run in the URL the pages show the last one that is done, in all its phases."""
    roofline = RooflineView(fleet.source, RooflineState())
    assert roofline.runs == [RunPhase(fleet.bert_run, "forward")]
    network = NetworkView(fleet.source, NetworkState())
    assert (network.state.run, network.state.phase) == (fleet.bert_run, "forward")


def test_a_run_that_is_gone_is_said_to_be(fleet: Fleet) -> None:
    """A link to a run that the collector does not hold shows the rest and names it."""
    state = RooflineState(runs=(RunPhase("gone", "decode"), RunPhase(fleet.gpt2_run, "decode")))
    view = RooflineView(fleet.source, state)
    assert view.runs == [RunPhase(fleet.gpt2_run, "decode")]
    assert "gone:decode" in str(view.note)


def test_views_of_an_away_collector_raise_source_error(source: StoreSource) -> None:
    """Nothing is drawn from nothing: the page gets the error and shows it."""
    source.is_away = True
    with pytest.raises(SourceError, match="refuses the connection"):
        NetworkView(source, NetworkState())


def test_opening_and_folding_come_back_to_the_start(fleet: Fleet) -> None:
    """Choosing a folded box opens it, choosing the head of its frame folds it again."""
    at_first = NetworkView(fleet.source, NetworkState(run=fleet.gpt2_run, phase="decode"))
    opened = at_first.tapped({"path": "transformer.h", "kind": "layer", "folds": True})
    assert opened.opened == ("transformer.h",)
    folded = NetworkView(fleet.source, opened).tapped({"path": "transformer.h", "kind": "head"})
    assert NetworkView(fleet.source, folded).opened == at_first.opened
    assert folded.node == "transformer.h"
