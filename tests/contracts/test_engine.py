"""What every engine's session promises, on a model of each kind it runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import TINY_BERT, TINY_GPT2, TINY_LLAMA, request

from roofleet_agent.engines.base import Session
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import ModelRequest, Workload, phases_of

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4)
REQUESTS = {
    "gpt2": request(TINY_GPT2),
    "llama": request(TINY_LLAMA),
    "bert": request(TINY_BERT),
    "module": ModelRequest("tests.agent.modules:with_inputs", "module", "own"),
}


@pytest.fixture(params=REQUESTS)
def session(request: pytest.FixtureRequest) -> Any:
    """A session of each engine and model on the CPU."""
    wanted = REQUESTS[request.param]
    opened = find_engine(wanted).load(wanted, torch.device("cpu"), "fp32", WORKLOAD)
    yield opened
    opened.close()


def steps(session: Session) -> list[tuple[str, int, int, int]]:
    """The steps of an iteration, called in order."""
    listed = []
    for step in session.iteration():
        step.call()
        listed.append((step.phase, step.step_index, step.tokens, step.cache_tokens))
    return listed


def test_an_iteration_is_a_fresh_prefill_and_its_decode_steps(session: Session) -> None:
    """One step for a model that does not generate; else a prefill and a step for each further token."""
    expected = [("forward", 0, session.prompt_tokens, 0)]
    if session.task == "generate":
        expected = [("prefill", 0, 8, 0), ("decode", 0, 1, 8), ("decode", 1, 1, 9), ("decode", 2, 1, 10)]
    assert steps(session) == expected
    assert steps(session) == expected, "a second iteration begins afresh"


def test_the_cache_holds_what_the_steps_say(session: Session) -> None:
    """Before each step the cache has as many tokens as the step tells, for every sequence of the batch."""
    for step in session.iteration():
        held = [t.shape for t in session.cache() if t.numel()]
        assert all(shape[-2] == step.cache_tokens and shape[0] == 2 for shape in held)
        assert bool(held) == (step.cache_tokens > 0)
        step.call()


def test_a_single_step_is_prepared_and_can_be_prepared_again(session: Session) -> None:
    """Each phase's step runs by itself, as often as it is asked for, after the same cache."""
    for phase in phases_of(session.task, session.new_tokens):
        found = []
        for _ in range(2):
            step = session.single(phase)
            step.call()
            found.append((step.phase, step.tokens, step.cache_tokens))
        assert found[0] == found[1]
        assert found[0][0] == phase


def test_the_model_is_ready_to_infer(session: Session) -> None:
    """Nothing is in training mode, and the weights are of the dtype asked for."""
    assert not any(module.training for module in session.module.modules())
    assert {p.dtype for p in session.module.parameters()} == {torch.float32}


def test_the_same_request_gives_the_same_prompt_and_weights() -> None:
    """Random weights and prompts repeat, so that runs can be compared."""
    engine = find_engine(REQUESTS["gpt2"])
    one, two = (engine.load(REQUESTS["gpt2"], torch.device("cpu"), "fp32", WORKLOAD) for _ in range(2))
    assert one.prompt_sha256 == two.prompt_sha256
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        assert torch.equal(a, b)
