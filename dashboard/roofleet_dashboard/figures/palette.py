"""Colours that people with any kind of colour vision tell apart, and text that is legible on them."""

from __future__ import annotations

from dataclasses import dataclass

from plotly.colors import sample_colorscale

__all__ = ["DARK", "LIGHT", "OKABE_ITO", "SYMBOLS", "Theme", "gradient", "sequential", "text_on", "theme_of"]

# Okabe and Ito's set, without its black (the page may be dark) and its yellow (the page may be light).
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "hexagon", "triangle-down", "pentagon")


@dataclass(frozen=True)
class Theme:
    """What a figure draws its own lines and letters with."""

    text: str
    faint: str
    grid: str
    surface: str
    box: str
    rim: str
    """Around points, so that those over one another can be told apart."""
    roofs: tuple[str, ...]
    fault: str
    """Around points that lie above their roof."""


LIGHT = Theme(
    text="#1f2933",
    faint="#5f6b7a",
    grid="#e3e7ec",
    surface="#ffffff",
    box="#f3f5f8",
    rim="#ffffff",
    roofs=("#4a5568", "#8a5a00", "#5b3f99", "#0f6f6f", "#9b2c4d"),
    fault="#c92a2a",
)
DARK = Theme(
    text="#e8ebef",
    faint="#a3adba",
    grid="#3a3f47",
    surface="#242424",
    box="#2e3238",
    rim="#c8ced6",
    roofs=("#b4bdca", "#e0b060", "#b7a3e8", "#7fcfcf", "#eb9ab3"),
    fault="#ff8787",
)


def theme_of(scheme: str | None) -> Theme:
    """The theme for a colour scheme as the browser tells it; light where it does not."""
    return DARK if scheme == "dark" else LIGHT


def sequential(fraction: float) -> str:
    """A colour of cividis, 0 dark blue to 1 yellow, as #rrggbb."""
    inside = min(max(fraction, 0.0), 1.0)
    (red, green, blue) = sample_colorscale("Cividis", [inside], colortype="tuple")[0]
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def gradient() -> str:
    """The same scale as a CSS background, left to right."""
    stops = ", ".join(sequential(step / 10) for step in range(11))
    return f"linear-gradient(to right, {stops})"


def text_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast on #rrggbb (relative luminance as in WCAG 2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"
