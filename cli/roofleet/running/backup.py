"""A copy of what is stored: by the collector that holds the folder, or by the store itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc

from roofleet.errors import UNREACHABLE, UserError
from roofleet.naming.doors import here, local_door
from roofleet_agent.sending.uplink import open_channel
from roofleet_collector.presence import running_collector
from roofleet_collector.store.visits import holds_data, visited
from roofleet_proto.services import BACKUP


def back_up(folder: Path, to: Path) -> int:
    """Makes the copy; returns how many batches it holds. UserError if it cannot be made."""
    if to.exists():
        raise UserError(f"{to} is there already: name a file that is not")
    if not holds_data(folder):
        raise UserError(f"nothing is stored in {folder}")
    running = running_collector(folder)
    try:
        if running is None:
            with visited(folder).writing() as store:
                return store.backup(to)
        with open_channel(here(running.grpc, running), local_door(folder, running)) as channel:
            done = BACKUP.client(channel)(None)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(done.path, to)
    except OSError as error:
        raise UserError(f"the copy could not be made: {error}") from error
    except grpc.RpcError as error:
        raise UserError(f"the collector could not make a copy: {error.details()}", UNREACHABLE) from None
    return int(done.batches)
