"""Memory without running: the same figures as a run's, and the largest size a device holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support import TINY_BERT, TINY_GPT2, TINY_LLAMA, request

from roofleet.analyzing.analysis import analyze
from roofleet.analyzing.fitting import Memory, largest_sizes
from roofleet_agent.measuring.step_memory import PhaseMemory, memory_of
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_analysis.catalogs.hardware import find_hardware

TINY_MISTRAL = TINY_LLAMA | {
    "model_type": "mistral",
    "sliding_window": 8,
    "architectures": ["MistralForCausalLM"],
}
TINY_GEMMA3 = TINY_LLAMA | {
    "model_type": "gemma3_text",
    "num_hidden_layers": 3,
    "head_dim": 16,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "architectures": ["Gemma3ForCausalLM"],
}
TINY_T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 101,
    "decoder_start_token_id": 0,
    "architectures": ["T5ForConditionalGeneration"],
}
L4 = find_hardware("l4")


def memory(model: ModelRequest, dtype: str, workload: Workload) -> Memory:
    """The memory of a model, by tracing alone."""
    return Memory(model, dtype, trace_phases(find_engine(model), model, dtype, workload))


def run_on_cpu(model: ModelRequest, dtype: str, workload: Workload) -> dict[str, PhaseMemory]:
    """The memory of each phase of an iteration that really runs, over all its steps."""
    session = find_engine(model).load(model, torch.device("cpu"), dtype, workload)
    return memory_of(session, session.iteration()).phases


@pytest.mark.parametrize(
    "workload",
    [
        Workload(1, 8, 4),
        Workload(3, 20, 6, logits="all"),
        Workload(2, 30, 2, logits="all"),
        Workload(2, 30, 3),
        Workload(2, 4, 20),
        Workload(2, 3, 1),
    ],
    ids=lambda w: f"{w.batch_size}x{w.prompt_tokens}+{w.new_tokens}",
)
@pytest.mark.parametrize(
    "config", [TINY_LLAMA, TINY_GEMMA3, TINY_BERT, TINY_T5], ids=["llama", "gemma3", "bert", "t5"]
)
def test_memory_on_meta_is_that_of_a_run(config: dict[str, Any], workload: Workload) -> None:
    """To the byte, with layer and op of the peak, though no decode step but the last and the first is traced:
    sliding windows and logits let go of a prompt with the second token, and ids generated before are kept."""
    model = request(config)
    assert memory(model, "bf16", workload).phases(workload) == run_on_cpu(model, "bf16", workload)


@pytest.mark.parametrize("config", [TINY_GPT2, TINY_MISTRAL, TINY_BERT], ids=["gpt2", "mistral", "bert"])
@pytest.mark.parametrize("new_tokens", [2, 24])
def test_the_largest_sizes_fit_and_the_next_do_not(config: dict[str, Any], new_tokens: int) -> None:
    """Whatever phase has the peak: the batch and the prompt found fit, and each one more does not."""
    model, workload = request(config), Workload(2, 8, new_tokens)
    traced = memory(model, "fp32", workload)

    def needs(one: Workload) -> int:
        return max(found.peak_bytes for found in traced.phases(one).values())

    capacity = needs(replace(workload, batch_size=5)) + 1
    found = largest_sizes(model, traced, workload, capacity)
    batch, prompt = found["batch_size"], found["prompt_tokens"]
    assert batch["value"] == 5
    assert batch["bytes"] == capacity - 1
    assert batch["next_bytes"] > capacity
    assert needs(replace(workload, prompt_tokens=prompt["value"])) == prompt["bytes"] <= capacity
    if prompt["limited_by"] == "positions":
        assert prompt["value"] == 64 - (new_tokens - 1)  # the last token generated is never an input
    else:
        more = needs(replace(workload, prompt_tokens=prompt["value"] + 1))
        assert more >= prompt["next_bytes"] > capacity


def test_what_does_not_fit_at_all_is_none() -> None:
    """With less room than the weights take no size is traced."""
    model, workload = request(TINY_GPT2), Workload(2, 8, 4)
    traced = memory(model, "fp32", workload)
    found = largest_sizes(model, traced, workload, traced.weight_bytes - 1)
    assert [found[name]["value"] for name in ("batch_size", "prompt_tokens")] == [0, 0]
    assert [found[name]["traced"] for name in ("batch_size", "prompt_tokens")] == [0, 0]


def test_a_search_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size with too many ops is not traced to its end: the answer is the largest known to fit, or more, and
    the model can be asked again."""
    model, workload = request(TINY_GPT2), Workload(2, 8, 4)
    traced = memory(model, "fp32", workload)
    monkeypatch.setattr("roofleet.analyzing.fitting._MOST_OPS", 10)
    found = largest_sizes(model, traced, workload, 2**30)
    assert [found[name]["value"] for name in ("batch_size", "prompt_tokens")] == [2, 8]
    assert {found[name]["limited_by"] for name in found} == {"search"}
    assert traced.phases(replace(workload, prompt_tokens=9))


def test_an_analysis_tells_where_the_memory_goes() -> None:
    """2 layers x (keys and values) x 2 heads x 8 features x 4 bytes x (8 + 4 - 1) tokens x 3 sequences of
    cache; weights with the buffers; and what together is the most of any phase."""
    assert L4 is not None
    found = analyze(request(TINY_LLAMA), "fp32", Workload(3, 8, 4), [L4], largest=True)
    held = found["memory"]
    assert held["kv_cache_bytes"] == 2 * 2 * 2 * 8 * 4 * (8 + 4 - 1) * 3
    assert held["weight_bytes"] > 4 * found["parameters"]  # rotary frequencies are buffers
    for phase in held["phases"].values():
        kinds = (phase["weight_bytes"], phase["kv_bytes"], phase["activation_bytes"])
        assert phase["peak_bytes"] == sum(kinds)
    assert held["needed_bytes"] == max(phase["peak_bytes"] for phase in held["phases"].values())
    (chip,) = found["hardware"]
    assert chip["fits"]
    assert chip["largest"]["prompt_tokens"] | {"traced": 0} == {
        "value": 64 - 3,  # the last token generated is never an input
        "bytes": chip["largest"]["prompt_tokens"]["bytes"],
        "next_bytes": None,
        "limited_by": "positions",
        "traced": 0,
    }


def test_tokens_beyond_the_positions_are_not_generated() -> None:
    """A prompt that fills the positions is analysed for its first token."""
    found = analyze(request(TINY_GPT2), "fp32", Workload(1, 64, 32), [])
    assert found["new_tokens"] == 1
    assert list(found["memory"]["phases"]) == ["prefill"]
