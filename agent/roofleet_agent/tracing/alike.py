"""Blocks of a model on `meta` that are alike run once, and the others are said to have done the same.

The model's own code calls every block. A block that is like one that ran before (its layers, what it is
called with and what the cache holds for it, see likeness.py) does not run: it gives out tensors laid out like
the other's, leaves the same in the cache, and who follows the model hears the same events again under the
block's own name (see tape.py). So ops, edges and memory are those of a model that ran in full. A kind of
block is believed when two that followed one another did the same, and its last one runs too, so that code
that looks at its position is found out; then everything is done again with every block.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from roofleet_agent.pausing import collector_paused
from roofleet_agent.storage import plain_tensors, state_tensors
from roofleet_agent.tracing.likeness import (
    Incomparable,
    Storages,
    block_likeness,
    elsewhere,
    entries,
    is_cache,
    layout,
    likeness,
    places,
)
from roofleet_agent.tracing.tape import Event, Tape, followers, tape_of
from roofleet_agent.variants.applying import repeated_blocks

_BELIEVED = 2
"""So many blocks of a kind must have done the same before a third is taken at their word."""

_every_block_runs: ContextVar[bool] = ContextVar("_every_block_runs", default=False)
_Result = TypeVar("_Result")


class Unlike(Exception):
    """Blocks that were taken for alike are not."""


@contextmanager
def every_block_runs() -> Iterator[None]:
    """No block stands for another while it lasts."""
    token = _every_block_runs.set(True)
    try:
        yield
    finally:
        _every_block_runs.reset(token)


def folded(work: Callable[[], _Result]) -> _Result:
    """What `work` gives, done again with every block if some were wrongly taken for alike."""
    try:
        return work()
    except Unlike:
        with every_block_runs():
            return work()


@contextmanager
def alike_run_once(model: nn.Module) -> Iterator[None]:
    """Blocks of a model on `meta` that are alike run once while it lasts.

    They run as ever until somebody followed the model and saw that they keep nothing. A model with data runs
    as it is. Unlike may come out of a call of the model: see `folded`.
    """
    if not all(tensor.is_meta for tensor in state_tensors(model)):
        yield
        return
    fold = _Fold()
    with ExitStack() as undo:
        undo.enter_context(collector_paused())
        for block in [] if _every_block_runs.get() else _blocks(model):
            own = vars(block.module).get("forward")
            block.module.forward = fold.once(block, block.module.forward)
            undo.callback(_restore, block.module, own)
        yield


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward
    else:
        module.forward = own


@dataclass
class _Block:
    """One of the repeated blocks; `kind` is the same for those alike, `weights` are addresses of storages."""

    path: str
    index: int
    module: nn.Module
    kind: int
    weights: list[int]
    is_last: bool = False

    def relative(self, path: str) -> str:
        """A path as it is told of any block of the kind."""
        inside = path == self.path or path.startswith(f"{self.path}.")
        return _HERE + path[len(self.path) :] if inside else path

    def absolute(self, path: str) -> str:
        """A path that is told of any block, in this one."""
        return self.path + path[1:] if path.startswith(_HERE) else path


_HERE = "\0"


def _blocks(model: nn.Module) -> list[_Block]:
    """The blocks that are like others, in the model's order."""
    kinds: dict[Any, int] = {}
    found: dict[int, list[_Block]] = {}
    for path in repeated_blocks(model):
        parent, _, name = path.rpartition(".")
        module = model.get_submodule(path)
        try:
            kind = kinds.setdefault((parent, block_likeness(module, int(name))), len(kinds))
        except (Incomparable, ValueError):
            continue
        weights = [tensor.untyped_storage()._cdata for tensor in state_tensors(module)]
        found.setdefault(kind, []).append(_Block(path, int(name), module, kind, weights))
    for blocks in found.values():
        blocks[-1].is_last = True
    return [block for blocks in found.values() if len(blocks) > _BELIEVED + 1 for block in blocks]


@dataclass(frozen=True)
class _Tensor:
    """How to make a tensor: the number of its storage, of those given or (below 0) left, and its layout."""

    storage: int
    laid_out: tuple[Any, ...]


@dataclass(frozen=True)
class _Given:
    """A cache that was given: the one of the block's arguments with this number."""

    number: int


@dataclass(frozen=True)
class _Plain:
    """A value that is no tensor."""

    value: Any


@dataclass(frozen=True)
class _Did:
    """What a block did: told on tapes, left in storages of these sizes, given out, changed in the caches."""

    tapes: tuple[Tape, ...]
    sizes: tuple[int, ...]
    output: Any
    kept: tuple[tuple[tuple[str, Any, Any], ...], ...]


@dataclass
class _Known:
    did: _Did | None = None
    times: int = 0
    is_taken_at_its_word: bool = False


class _Fold:
    """What the blocks of a model did while they were followed, by their likeness."""

    def __init__(self) -> None:
        self._known: dict[Any, _Known] = {}
        self._seen_through: set[int] = set()

    def once(self, block: _Block, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The block's forward, which runs only while it is not known what it does."""

        def once(*args: Any, **kwargs: Any) -> Any:
            if not followers and block.kind not in self._seen_through:
                return forward(*args, **kwargs)  # nobody would see what it keeps
            storages = Storages()
            try:
                given = likeness((args, kwargs), block.index, storages)
                shared = tuple(storages.numbers.setdefault(w, len(storages.numbers)) for w in block.weights)
                sign = block.kind, given, shared, tuple(map(id, followers))
                known = self._known.setdefault(sign, _Known())
            except (Incomparable, TypeError):
                return forward(*args, **kwargs)
            caches = [value for value in (*args, *kwargs.values()) if is_cache(value)]
            if known.times < _BELIEVED or block.is_last:
                output = _run(known, block, storages.numbers, caches, lambda: forward(*args, **kwargs))
                if followers and known.times >= _BELIEVED:
                    self._seen_through.add(block.kind)
                return output
            assert known.did is not None
            known.is_taken_at_its_word = True
            return _again(known.did, block, storages.numbers, caches, (args, kwargs))

        return once


def _run(
    known: _Known, block: _Block, given: dict[int, int], caches: list[Any], call: Callable[[], Any]
) -> Any:
    """Runs the block and keeps what it did."""
    listening = list(followers)
    # where nobody follows, what is given is held, so that no address is one of something made meanwhile
    held = None if listening else [[item for *_, item in entries(cache, block.index)] for cache in caches]
    others = [elsewhere(cache, block.index) for cache in caches]
    before = [_remembered(cache, block.index) for cache in caches]
    for follower in listening:
        follower.begin_tape(given)
    noted: list[tuple[list[Event], set[int]]] = []
    try:
        output = call()
    finally:
        noted = [follower.end_tape() for follower in listening]
    del held
    did: _Did | None = None
    if others == [elsewhere(cache, block.index) for cache in caches]:
        with suppress(Incomparable):
            did = _told(block, given, caches, before, output, noted)
    if did is not None and did == known.did:
        known.times += 1
    elif known.is_taken_at_its_word:
        raise Unlike(block.path)
    else:
        known.did, known.times = did, 0 if did is None else 1
    return output


_Remembered = dict[tuple[str, Any], Callable[[Any], bool]]


def _remembered(cache: Any, index: int) -> _Remembered:
    """For all that a cache keeps for a block, whether a value is that one; holds on to no tensor."""

    def is_same(value: Any) -> Callable[[Any], bool]:
        if isinstance(value, torch.Tensor):
            known = weakref.ref(value)
            return lambda other: other is known()
        return lambda other: type(other) is type(value) and bool(other == value)

    return {(name, key): is_same(value) for name, key, value in entries(cache, index)}


def _told(
    block: _Block,
    given: Mapping[int, int],
    caches: list[Any],
    before: list[_Remembered],
    output: Any,
    noted: Sequence[tuple[list[Event], set[int]]],
) -> _Did:
    """What a block did, in terms of any block of its kind; Incomparable if it left more than is seen."""
    made = set().union(*(alive for _, alive in noted)) if noted else None
    teller = _Teller(given, made, caches)
    gives = teller.told(output)
    kept = []
    for cache, known in zip(caches, before, strict=True):
        now = [(name, key, item) for name, key, item in entries(cache, block.index)]
        if not known.keys() <= {(name, key) for name, key, _ in now}:
            raise Incomparable("something was taken out of the cache")
        kept.append(
            tuple(
                (name, key, teller.told(item))
                for name, key, item in now
                if (name, key) not in known or not known[name, key](item)
            )
        )
    if made is not None and not made <= teller.left.keys():
        raise Incomparable("it keeps tensors where nobody looks")
    tapes = tuple(tape_of(events, given, list(teller.left), block.relative) for events, _ in noted)
    return _Did(tapes, tuple(teller.left.values()), gives, tuple(kept))


class _Teller:
    """Says of tensors where their storage is from: it was given, or made. `left` has those that were made:
    address and bytes. What is not known to be made (None) was if it was not given."""

    def __init__(self, given: Mapping[int, int], made: set[int] | None, caches: list[Any]) -> None:
        self._given, self._made, self._caches = given, made, caches
        self.left: dict[int, int] = {}

    def told(self, value: Any) -> Any:
        """How to make a value again; Incomparable for one that is no tensor, cache or plain value."""
        if isinstance(value, torch.Tensor):
            if type(value) is not torch.Tensor:
                raise Incomparable(type(value).__name__)
            storage = value.untyped_storage()
            address = storage._cdata
            made = address not in self._given if self._made is None else address in self._made
            if made:  # also where one that was given and let go had this address
                self.left.setdefault(address, storage.nbytes())
                return _Tensor(-1 - list(self.left).index(address), layout(value))
            if address not in self._given:
                raise Incomparable("a tensor from elsewhere")
            return _Tensor(self._given[address], layout(value))
        if type(value) in (list, tuple):
            return type(value), tuple(self.told(item) for item in value)
        if is_cache(value):
            return _Given(next(number for number, cache in enumerate(self._caches) if cache is value))
        if isinstance(value, dict):
            raise Incomparable("a mapping")
        likeness(value, -1, Storages())  # refuses what is no plain value
        return _Plain(value)


def _again(did: _Did, block: _Block, given: Mapping[int, int], caches: list[Any], arguments: Any) -> Any:
    """Lets a block have done what others of its kind did; gives what it gives out."""
    left = [torch.UntypedStorage(size, device="meta") for size in did.sizes]
    addresses = list(given)
    with ExitStack() as unheard:
        for follower, tape in zip(list(followers), did.tapes, strict=True):
            tape.play(follower, addresses, left, block.absolute)
            unheard.enter_context(follower.paused())
        maker = _Maker(block, addresses, left, caches, arguments)
        output = maker.made(did.output)
        for cache, kept in zip(caches, did.kept, strict=True):
            where = {name: mapping for name, mapping, _ in places(cache, block.index)}
            for name, key, told in kept:
                where[name][block.index if name == "is_updated" else key] = maker.made(told)
    return output


class _Maker:
    """Makes what a block gives out, in its turn."""

    def __init__(
        self,
        block: _Block,
        given: list[int],
        left: list[torch.UntypedStorage],
        caches: list[Any],
        arguments: Any,
    ) -> None:
        self._block, self._given, self._left = block, given, left
        self._caches, self._arguments = caches, arguments

    def made(self, told: Any) -> Any:
        """The value that was told of."""
        match told:
            case _Tensor(number, (dtype, offset, shape, stride)):
                storage = self._left[-1 - number] if number < 0 else self._there(self._given[number])
                return torch.empty(0, dtype=dtype, device="meta").set_(storage, offset, shape, stride)
            case _Given(number):
                return self._caches[number]
            case _Plain(value):
                return value
            case kind, items:
                return kind(self.made(item) for item in items)

    def _there(self, address: int) -> torch.UntypedStorage:
        kept = [item for cache in self._caches for _, _, item in entries(cache, self._block.index)]
        for tensor in (*_tensors((self._arguments, kept)), *state_tensors(self._block.module)):
            if tensor.untyped_storage()._cdata == address:
                return tensor.untyped_storage()
        raise AssertionError(f"{self._block.path} was given no storage at {address}")


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield from plain_tensors(tree)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
