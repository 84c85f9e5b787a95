"""A model with an encoder and a decoder from its checkpoint to the views: profiled, stored and asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import FAMILIES, Shape

from roofleet.running.destinations import EmbeddedCollector
from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.engines.transformers import TransformersEngine
from roofleet_agent.sending.spool import Spool
from roofleet_agent.service import register
from roofleet_agent.workload import ModelRequest, Workload

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4, iterations=2, warmup=1, keep_outputs=True)
Query = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 with weights of its own."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = {k: v for k, v in FAMILIES["t5"].config.items() if k != "model_type"}
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(1)
    T5ForConditionalGeneration(T5Config(**config, decoder_start_token_id=0)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def query(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """SQL over one run of it."""
    folder = tmp_path_factory.mktemp("data")
    spool, store = Spool(folder / "spool.sqlite"), EmbeddedCollector(folder)
    register(spool, spool.agent_id, [CpuDevice()])
    request = ModelRequest(str(checkpoint), "folder", "pretrained")
    profiling.profile(request, CpuDevice(), "fp32", WORKLOAD, spool)
    store.deliver(spool)
    yield lambda sql: store.query(sql).to_pylist()
    store.close()
    spool.close()


def test_its_phases_are_prefill_and_decode(query: Query) -> None:
    """One prefill of 8 tokens and 3 decode steps of one an iteration; the run is done and tells its rates."""
    steps = query(
        "SELECT DISTINCT phase, CASE WHEN phase = 'decode' THEN step_index END AS place, tokens, "
        "cache_tokens FROM steps ORDER BY phase DESC, place"
    )
    assert [tuple(row.values()) for row in steps] == [
        ("prefill", None, 8, 0),  # repeated on the same prompt, for its pairs
        ("decode", 0, 1, 8),
        ("decode", 1, 1, 9),
        ("decode", 2, 1, 10),
    ]
    run = query("SELECT * FROM run_summary")[0]
    assert (run["status"], run["batch_size"], run["new_tokens"]) == ("done", 2, 4)
    assert run["time_to_first_token_ns"] > 0
    assert run["time_per_output_token_ns"] > 0


def test_its_layers_cost_what_the_configuration_says(query: Query) -> None:
    """The layers' matrix work adds up to that by hand, and the encoder works in prefill alone."""
    for phase, shape in (("prefill", Shape(2, 8, 0, 8)), ("decode", Shape(2, 1, 9, 8))):
        layers = query(f"SELECT path, calls, matmul_flops FROM layer_summary WHERE phase = '{phase}'")
        assert sum(la["matmul_flops"] or 0 for la in layers) == 2 * FAMILIES["t5"].products(shape)
        encoder = [la for la in layers if la["path"].startswith("encoder") and la["calls"]]
        assert bool(encoder) == (phase == "prefill")
    assert query("SELECT count(*) AS unknown FROM op_costs WHERE NOT is_known") == [{"unknown": 0}]


def test_it_generates_what_the_library_generates(query: Query, checkpoint: Path) -> None:
    """The tokens of the run are those of `generate`, so that both caches hold what they should."""
    request = ModelRequest(str(checkpoint), "folder", "pretrained")
    session = TransformersEngine().load(request, torch.device("cpu"), "fp32", WORKLOAD)
    model: Any = session.module
    prompt = torch.randint(0, 101, (2, 8), generator=torch.Generator().manual_seed(20_261))
    expected = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)[:, 1:]
    kept = query("SELECT token_ids FROM outputs ORDER BY sequence_index")
    assert [row["token_ids"] for row in kept] == expected.tolist()
