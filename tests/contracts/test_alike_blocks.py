"""What holds wherever blocks that are alike run once: the answer is the one of a model that ran in full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from tests.families import FAMILIES
from tests.support import request
from torch import nn

from roofleet.analyzing.fitting import Memory
from roofleet_agent.engines.base import Step
from roofleet_agent.measuring.memory import LayerMemory
from roofleet_agent.measuring.step_memory import PhaseMemory, memory_of
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing import TraceResult, trace
from roofleet_agent.tracing.alike import alike_run_once, every_block_runs, folded
from roofleet_agent.variants import parse
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_analysis.catalogs.models import find_model, models

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4)
TWO_KINDS = ("gemma2", "gemma3", "gpt_oss")
"""Families whose blocks take turns in having a window."""


@dataclass(frozen=True)
class Found:
    """All that is found on `meta`: ops and edges, the memory of each phase and each of its layers."""

    phases: dict[str, TraceResult]
    memory: dict[str, PhaseMemory]
    layers: dict[str, list[LayerMemory]]


def found(model: ModelRequest, dtype: str, workload: Workload) -> Found:
    """What an analysis of the model finds."""
    traced = trace_phases(find_engine(model), model, dtype, workload)
    if traced.session.task != "generate":
        workload = replace(workload, new_tokens=0)
    memory = Memory(model, dtype, traced)
    phases = memory.phases(workload)
    return Found(traced.phases, phases, {phase: memory.layers(phase, workload) for phase in phases})


def deep(name: str) -> ModelRequest:
    """A family with so many blocks of each kind that two stand for others, or one."""
    config, blocks = FAMILIES[name].config, 8 if name in TWO_KINDS else 5
    names = {"n_layer", "n_layers", "num_layers", "num_hidden_layers"}
    changed: dict[str, Any] = dict.fromkeys(names & config.keys(), blocks)
    if "layer_types" in config:
        changed["layer_types"] = config["layer_types"] * (blocks // len(config["layer_types"]))
    return request(config | changed)


@contextmanager
def counted() -> Iterator[list[str]]:
    """The paths of the linear layers and convolutions that run."""
    ran: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in (nn.Linear, nn.Conv1d):
            forward = kind.forward

            def noted(self: Any, *args: Any, _forward: Any = forward) -> Any:
                ran.append(type(self).__name__)
                return _forward(self, *args)

            patch.setattr(kind, "forward", noted)
        yield ran


@pytest.mark.parametrize("name", FAMILIES)
def test_alike_blocks_change_no_digit_of_a_family(name: str) -> None:
    """Ops in their order with layers, shapes, roles and bytes, edges, memory of each phase with the place of
    its peak, and of each layer: as if every block had run, though fewer did."""
    model = deep(name)
    with counted() as few:
        folded_answer = found(model, "fp32", WORKLOAD)
    with every_block_runs(), counted() as all_blocks:
        assert folded_answer == found(model, "fp32", WORKLOAD)
    if name not in ("gpt2", "bloom", "falcon"):  # whose products are made by other layers
        assert 0 < len(few) < 0.9 * len(all_blocks)


@pytest.mark.parametrize(
    "variant",
    ["int8-dynamic", "int8-weight-only", "int4-weight-only", "static-cache", "pruned-structured-50"],
)
def test_alike_blocks_change_no_digit_of_a_variant(variant: str) -> None:
    """Quantised weights, a cache that is there from the start, and matrices that lost features."""
    model = deep("llama")
    workload = replace(WORKLOAD, variant=parse(variant))
    answer = found(model, "bf16", workload)
    with every_block_runs():
        assert answer == found(model, "bf16", workload)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Llama-3.1-405B", "DeepSeek-V3", "gemma-3-1b"])
def test_alike_blocks_change_no_digit_at_full_size(name: str) -> None:
    """The same for published models as they are: the deepest, one with latent attention and a few dense
    blocks before the mixtures, and one whose blocks take turns in having a window.

    To run every block of all published models takes minutes. What is in a block of another architecture the
    families have, in as many blocks as folding looks at; that there are many more is the same for all.
    """
    entry = find_model(name)
    assert entry is not None
    model = request(dict(entry.config), task=entry.task)
    workload = Workload(prompt_tokens=16, new_tokens=2)
    answer = found(model, "bf16", workload)
    with every_block_runs():
        assert answer == found(model, "bf16", workload)


def test_every_published_architecture_is_a_family() -> None:
    """So that none is without a test of its blocks."""
    assert {entry.model_type for entry in models()} <= {f.config["model_type"] for f in FAMILIES.values()}


# -- blocks that look alike and are not


class Block(nn.Module):
    """A block whose code may look at where it stands, in one of the places code of transformers is in."""

    __module__ = "transformers.models.of_this_test"

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.linear = nn.Linear(8, 8)
        self.kept: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One product."""
        return self.linear(x)


class TwiceAtTheEnd(Block):
    """The last block of six does more than the others."""

    __module__ = Block.__module__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One product, or two."""
        return self.linear(self.linear(x)) if self.layer_idx == 5 else self.linear(x)


class KeepsSomething(Block):
    """A block that keeps a tensor where nobody looks."""

    __module__ = Block.__module__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One product, which is kept."""
        self.kept.append(self.linear(x))
        return self.kept[-1] + 1


class Theirs(Block):
    """The same as Block in code of a user's own, which may do anything."""

    __module__ = "their.package"


class Stack(nn.Module):
    """Six blocks one after the other, on `meta`."""

    def __init__(self, kind: type[Block]) -> None:
        super().__init__()
        with torch.device("meta"):
            self.blocks = nn.ModuleList(kind(index) for index in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All of them."""
        for block in self.blocks:
            x = block(x)
        return x


def followed(kind: type[Block]) -> tuple[TraceResult, list[LayerMemory]]:
    """The trace and the memory of six blocks."""

    def follow() -> tuple[TraceResult, list[LayerMemory]]:
        model, x = Stack(kind), torch.empty(2, 8, device="meta")
        with alike_run_once(model):
            traced = trace(model, lambda: model(x))
        return traced, memory_by_layer(Stack(kind), x)

    return folded(follow)


def memory_by_layer(model: Stack, x: torch.Tensor) -> list[LayerMemory]:
    """What each layer found and left."""

    class Held:
        module = model

        def cache(self) -> tuple[torch.Tensor, ...]:
            return ()

    with alike_run_once(model):
        held = memory_of(Held(), [Step("forward", 0, 2, 0, lambda: model(x))])
    return held.layers["forward"]


@pytest.mark.parametrize("kind", [Block, TwiceAtTheEnd, KeepsSomething, Theirs])
def test_blocks_that_only_look_alike_are_told_as_they_are(kind: type[Block]) -> None:
    """Code that looks at its position, that keeps what it made, and code of others: the answer is that of all
    blocks; only blocks that are alike in all they do stand for one another."""
    with counted() as ran:
        answer = followed(kind)
    with every_block_runs(), counted() as all_blocks:
        assert answer == followed(kind)
    assert (len(ran) < len(all_blocks)) == (kind is Block)


def test_a_model_is_left_as_it_was() -> None:
    """No block has another forward afterwards, also where one failed."""
    model = Stack(Block)
    for fails in (False, True):
        with pytest.raises(RuntimeError) if fails else nullcontext(), alike_run_once(model):
            trace(model, lambda fails=fails: model(torch.empty(2, 9 if fails else 8, device="meta")))
        assert all("forward" not in vars(block) for block in model.blocks)
