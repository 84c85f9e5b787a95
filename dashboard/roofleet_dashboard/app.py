"""The dashboard as a Dash app, and the server it runs in."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import dash
import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel

from roofleet_dashboard.guard import guard, own_names
from roofleet_dashboard.login import Entry, Logins, UsersSource, add_login
from roofleet_dashboard.pages import fleet, network, roofline, runs, sweeps
from roofleet_dashboard.shell import register_shell, shell_layout
from roofleet_dashboard.source import Source

__all__ = ["DashboardServer", "create_app", "prepare_server", "serve"]

THREADS = 8
CONNECTIONS, ROOMY = 400, 100
"""Connections at once, and how many there may be before idle ones are ended; a browser keeps about six."""
IDLE_S = 30
"""How long a connection may be idle otherwise."""
PAGES = (fleet.PAGE, runs.PAGE, roofline.PAGE, network.PAGE, sweeps.PAGE)


def create_app(
    source: Source, *, entry: Entry | None = None, answers: Callable[[str], bool] | None = None
) -> dash.Dash:
    """The app that reads from `source`; nothing is asked of it before a browser opens a page.

    With `entry` users log in where it asks for that, and see what their token may. `answers` says which Host
    headers are this server's; without it those of this machine alone.
    """
    app = dash.Dash(
        __name__,
        title="Roofleet",
        update_title="",
        serve_locally=True,
        # A page's components come with the page.
        suppress_callback_exceptions=True,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    guard(app, answers or own_names("localhost"))
    if entry is not None:
        logins = Logins(entry)
        source = UsersSource(logins, source)
        add_login(app, logins)
    app.layout = shell_layout(PAGES, leaves=entry is not None)
    register_shell(app, PAGES)
    for page in PAGES:
        page.register(app, source)
    return app


class DashboardServer:
    """A server that listens from the start, answers while `run` runs, and is ended by `stop`."""

    def __init__(self, app: dash.Dash, host: str, port: int) -> None:
        self._sockets: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._running = False
        try:
            self._server: Any = waitress.create_server(
                app.server,
                map=self._sockets,
                host=host,
                port=port,
                threads=THREADS,
                connection_limit=CONNECTIONS,
                channel_timeout=IDLE_S,
                cleanup_interval=5,
            )
        except OSError as error:
            wasyncore.close_all(self._sockets)
            why = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                why = "another program listens there; stop it or choose another port"
            raise OSError(error.errno, f"the dashboard cannot listen on {host}:{port}: {why}") from error
        except ValueError as error:  # waitress's word for a name that does not resolve
            why = f"the dashboard cannot listen on {host}:{port}: {host} is no address of this machine"
            raise OSError(errno.EADDRNOTAVAIL, why) from error

    @property
    def port(self) -> int:
        """The port it listens on; the one the system chose where 0 was asked for."""
        several = getattr(self._server, "effective_listen", None)
        return int(several[0][1] if several else self._server.effective_port)

    def run(self) -> None:
        """Answers until `stop` is called from another thread, or an interrupt is raised in this one."""
        self._running = True
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=0.25, use_poll=True, map=self._sockets, count=1)
                self._make_room()
        finally:
            self._close()

    def stop(self) -> None:
        """Ends `run` within a quarter of a second, requests under way included after two more."""
        self._stopping.set()
        if not self._running:
            self._close()

    def _make_room(self) -> None:
        """Ends the connections that have been idle longest where there are many, whoever opened them."""
        if len(self._sockets) < ROOMY:
            return
        idle = [s for s in self._sockets.values() if isinstance(s, HTTPChannel) and not s.requests]
        now = time.time()
        for channel in sorted(idle, key=lambda channel: channel.last_activity)[: len(idle) - ROOMY // 2]:
            if now - channel.last_activity > 1:
                channel.will_close = True

    def _close(self) -> None:
        self._server.task_dispatcher.shutdown(timeout=2)
        wasyncore.close_all(self._sockets)


def prepare_server(app: dash.Dash, host: str = "127.0.0.1", port: int = 0) -> DashboardServer:
    """A server that listens but does not answer yet. Raises OSError, naming the address, if it cannot."""
    return DashboardServer(app, host, port)


def serve(app: dash.Dash, host: str, port: int, *, ready: Callable[[int], None] = lambda port: None) -> None:
    """Answers until Ctrl-C or SIGTERM; `ready` hears the port it listens on.

    Raises OSError, naming the address, if it cannot listen.
    """
    server = prepare_server(app, host, port)
    ready(server.port)

    def leave(_signal: int, _frame: FrameType | None) -> None:
        server.stop()

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, leave) if is_main else None
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
