"""Opening a store that was damaged: what is bad is set aside under a new name, and what is good is opened."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from roofleet_collector.errors import StoreDamaged
from roofleet_collector.limits import USUAL, Engine
from roofleet_collector.store.duckdb_store import FILE_NAME, DuckDBStore
from roofleet_collector.store.visits import open_when_free

log = logging.getLogger(__name__)

LOG_NAME = f"{FILE_NAME}.wal"
COPY_NAME = f"{LOG_NAME}.as-found"


def open_mended(
    folder: Path, patience_s: float, *, strict: bool = False, engine: Engine = USUAL.engine
) -> DuckDBStore:
    """The store of a folder as `open_when_free` gives it, whatever became of its files.

    A damaged log is replayed up to where the damage begins; without the file itself it starts empty. Nothing
    is deleted: what is bad keeps its bytes beside, and the log says where. With `strict` StoreDamaged is
    raised instead, also where a log that is cut or gone, or an older copy of the file, lacks what was
    acknowledged.
    """
    before = _copy_of_log(folder)
    try:
        store, mended = _opened(folder, patience_s, strict, engine, before)
        if (lost := store.lost()) is None:
            return store
        batches, since = lost
        said = (
            f"{batches} batches that were acknowledged until {since} are not in {store.path}: its "
            "write-ahead log was cut or is gone, or it is an older copy"
        )
        if before is not None and not mended:
            said += f"; the log as it was found is {_aside(before, folder / LOG_NAME, 'as-found')}"
        if strict:
            store.close()
            raise StoreDamaged(said)
        log.error("%s", said)
        store.accept_loss()
        return store
    finally:
        if before is not None:
            before.unlink(missing_ok=True)


def _opened(
    folder: Path, patience_s: float, strict: bool, engine: Engine, before: Path | None
) -> tuple[DuckDBStore, bool]:
    """The store, and whether something was set aside first."""
    mended = False
    while True:
        try:
            return open_when_free(folder, patience_s, engine=engine), mended
        except StoreDamaged as damage:
            if strict:
                raise
            if damage.good_log_bytes is None:
                _set_aside_all(folder, damage, before)
            else:
                _set_aside_log(folder, damage, 0 if mended else damage.good_log_bytes)
            mended = True


def _copy_of_log(folder: Path) -> Path | None:
    """The engine cuts off what it cannot replay: there is a copy until it is known that nothing is
    missing."""
    if not (folder / LOG_NAME).exists():
        return None
    copy = folder / COPY_NAME
    try:
        shutil.copyfile(folder / LOG_NAME, copy)
    except OSError as error:
        log.warning("the write-ahead log could not be copied before it is replayed: %s", error)
        return None
    return copy


def _set_aside_log(folder: Path, damage: StoreDamaged, good_bytes: int) -> None:
    found = folder / LOG_NAME
    bad = _aside(found, found, "damaged")
    if good_bytes:
        with bad.open("rb") as source, found.open("wb") as good:
            good.write(source.read(good_bytes))
    log.error(
        "%s. It is set aside as %s; of its %d bytes the first %d are replayed, what was stored after "
        "them is lost",
        *(damage, bad, bad.stat().st_size, good_bytes),
    )


def _set_aside_all(folder: Path, damage: StoreDamaged, before: Path | None) -> None:
    bad = _aside(folder / FILE_NAME, folder / FILE_NAME, "damaged")
    log.error("%s. It is set aside as %s, and a new one is begun", damage, bad)
    if (folder / LOG_NAME).exists():
        # under the name by which the engine finds it
        (folder / LOG_NAME).rename(bad.with_name(f"{bad.name}.wal"))
    if before is not None and before.exists():  # version 2 may have changed it by then
        _aside(before, folder / LOG_NAME, "as-found")


def _aside(file: Path, original: Path, why: str) -> Path:
    """Renames a file after what it was, and why and when it is no more; the new name."""
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return file.rename(original.with_name(f"{original.name}.{why}-{at}"))
