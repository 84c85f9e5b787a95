"""What stands around every page: the header, the way to the pages, and the page that the URL names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Input, Output, dcc, html

from roofleet_dashboard.callbacks import callback
from roofleet_dashboard.source import Source

__all__ = ["SCHEME", "Page", "register_shell", "shell_layout"]

LOCATION = "shell-location"
PAGE = "shell-page"
BURGER = "shell-burger"
FRAME = "shell-frame"
TOGGLE = "shell-toggle"
SCHEME = "shell-scheme"
"""A store that holds `dark` or `light`, as the page is seen: what figures are drawn for."""

_HEADER_PX = 56


@dataclass(frozen=True)
class Page:
    """A page: where it is, its name, what it shows for a URL's query, and its callbacks."""

    path: str
    title: str
    layout: Callable[[str], Any]
    register: Callable[[dash.Dash, Source], None]


def shell_layout(pages: tuple[Page, ...], *, leaves: bool = False) -> Any:
    """The frame of the whole app, with a way to log out if `leaves`; the page itself comes with the first
    callback."""
    header = dmc.AppShellHeader(
        html.Div(
            [
                dmc.Burger(id=BURGER, size="sm", hiddenFrom="sm", opened=False, **{"aria-label": "Pages"}),
                dcc.Link(html.Span("Roofleet", className="rf-name"), href="/", className="rf-home"),
                dmc.Group(_links(pages), gap="xs", visibleFrom="sm", className="rf-links"),
                dmc.ColorSchemeToggle(
                    id=TOGGLE,
                    lightIcon="☀",
                    darkIcon="☾",
                    variant="subtle",
                    color="gray",
                    size="lg",
                    className="rf-scheme",
                    **{"aria-label": "Dark or light"},
                ),
                *([_leaving()] if leaves else []),
            ],
            className="rf-header",
        )
    )
    frame = dmc.AppShell(
        [
            header,
            dmc.AppShellNavbar(dmc.Stack(_links(pages), gap=4, p="sm")),
            dmc.AppShellMain(html.Div(id=PAGE, className="rf-page")),
        ],
        id=FRAME,
        header={"height": _HEADER_PX},
        navbar=_navbar(False),
        padding={"base": "sm", "sm": "lg"},
    )
    return dmc.MantineProvider(
        [dcc.Location(id=LOCATION, refresh="callback-nav"), dcc.Store(id=SCHEME), frame],
        defaultColorScheme="auto",
        theme={
            "primaryColor": "blue",
            "primaryShade": {"light": 8, "dark": 6},
            "fontFamily": "system-ui, -apple-system, 'Segoe UI', sans-serif",
        },
    )


def register_shell(app: dash.Dash, pages: tuple[Page, ...]) -> None:
    """The callbacks that choose the page and open the menu."""

    @callback(app, Output(PAGE, "children"), Input(LOCATION, "pathname"), dash.State(LOCATION, "search"))
    def show_page(pathname: str | None, search: str | None) -> Any:
        name = (pathname or "").strip("/")
        for page in pages:
            if name in (page.path.strip("/"), page.title.lower()):
                return page.layout(search or "")
        return [
            html.H1("There is no such page"),
            html.P([f"{pathname} is not here. ", dcc.Link("Go to the fleet", href="/"), "."]),
        ]

    app.clientside_callback(
        ClientsideFunction("roofleet", "scheme"),
        Output(SCHEME, "data"),
        Input(TOGGLE, "computedColorScheme"),
        Input(PAGE, "children"),
    )

    @callback(app, Output(BURGER, "opened"), Input(LOCATION, "pathname"), prevent_initial_call=True)
    def close_menu(_: str | None) -> bool:
        return False

    @callback(app, Output(FRAME, "navbar"), Input(BURGER, "opened"))
    def open_menu(opened: bool | None) -> dict[str, Any]:
        return _navbar(bool(opened))


def _leaving() -> Any:
    button = html.Button("Log out", type="submit", className="rf-leave")
    return html.Form(button, action="/logout", method="post")


def _navbar(opened: bool) -> dict[str, Any]:
    return {"width": 220, "breakpoint": "sm", "collapsed": {"mobile": not opened, "desktop": True}}


def _links(pages: tuple[Page, ...]) -> list[Any]:
    return [
        dmc.NavLink(label=page.title, href=page.path, active="exact", className="rf-link") for page in pages
    ]
