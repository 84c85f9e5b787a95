"""The hub of models: whether it can be asked at all, so that a name without a network fails in seconds."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from roofleet import console
from roofleet_agent.errors import ModelNotFound
from roofleet_agent.workload import ModelRequest

USUAL = "https://huggingface.co"
PATIENCE_S = 3.0
"""How long the hub, or the proxy on the way to it, has to take a connection; its own client tries for a
minute."""


def settle_hub(request: ModelRequest, *, offline: bool, tokenizer: bool = False) -> None:
    """Sees to it that loading the model asks the hub only if that can be asked.

    With `offline`, or where the hub does not answer, what its cache holds is used and nothing else;
    ModelNotFound if that does not hold the model. `tokenizer` says that one is needed beside the model.
    """
    if offline:
        _switch_off()
    elif _needs_hub(request, tokenizer) and os.environ.get("HF_HUB_OFFLINE") != "1":
        why = why_away()
        if why is not None:
            console.warn(f"the hub does not answer ({why}): only what its cache holds is used")
            _switch_off()
    if request.origin == "hub" and os.environ.get("HF_HUB_OFFLINE") == "1" and not _is_cached(request.name):
        raise ModelNotFound(
            f"{request.name!r} could not be loaded: the hub is not asked, and its cache in {_cache()} "
            "does not hold it. Check the name and the network, or take a catalogue model"
        )


def why_away() -> str | None:
    """Why the hub cannot be reached; None if it, or the proxy on the way to it, takes a connection."""
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or USUAL)
    host = hub.hostname or ""
    way = hub
    proxy = getproxies().get(hub.scheme)
    if proxy and not proxy_bypass(host):
        way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = way.port or (443 if way.scheme == "https" else 80)
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((way.hostname or "", port), timeout=PATIENCE_S).close()
        except OSError as error:
            said.put(f"{way.hostname}: {error.strerror or error}")
        else:
            said.put(None)

    # on a thread, since asking for a name's address knows no limit
    threading.Thread(target=connect, daemon=True).start()
    try:
        return said.get(timeout=PATIENCE_S)
    except queue.Empty:
        return f"{way.hostname}: nothing for {PATIENCE_S:g} s"


def _needs_hub(request: ModelRequest, tokenizer: bool) -> bool:
    if request.origin == "catalog":
        return request.weights == "pretrained" or tokenizer
    return request.origin == "hub"


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _is_cached(name: str) -> bool:
    return (_cache() / f"models--{name.replace('/', '--')}").is_dir()


def _switch_off() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it reads the variable when it is imported
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
