"""What a variant costs in quality against the unchanged model on a text, and why it may be unknown."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.pretrained import TEXT, pretrained_folder
from tests.support import TINY_BERT, TINY_GPT2, ListSink, request

from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.passes.quality import compare
from roofleet_agent.variants import parse
from roofleet_agent.workload import ModelRequest, Workload

WORKLOAD = Workload(prompt_tokens=8, new_tokens=2, iterations=1, warmup=0, quality_text=TEXT)
COLUMNS = ("perplexity", "baseline_perplexity", "kl_divergence", "top1_agreement", "quality_tokens")


class Fixed:
    """A model that gives the same log-odds at every position."""

    def __init__(self, *odds: float) -> None:
        self._logits = torch.tensor(odds).log()

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        """Logits [1, tokens, vocabulary]."""
        return SimpleNamespace(logits=self._logits.expand(1, input_ids.shape[1], -1))


def test_the_figures_are_those_of_the_definition() -> None:
    """Model (1/2, 1/4, 1/4) and baseline (1/4, 1/2, 1/4) on the tokens 0, 1, 2 after a first one."""
    ids = torch.tensor([[0, 0, 1, 2]])
    found = compare(Fixed(2, 1, 1), Fixed(1, 2, 1), ids, window=10)
    # exp(-(ln 1/2 + ln 1/4 + ln 1/4) / 3) = 2^(5/3)
    assert found.perplexity == pytest.approx(2 ** (5 / 3))
    assert found.baseline_perplexity == pytest.approx(2 ** (5 / 3))
    # 1/4 ln(1/4 : 1/2) + 1/2 ln(1/2 : 1/4) + 0 = 1/4 ln 2
    assert found.kl_divergence == pytest.approx(math.log(2) / 4)
    assert found.top1_agreement == 0
    assert found.tokens == 3


def test_windows_predict_every_token_once() -> None:
    """Ten tokens are nine predictions, however they are cut; a model agrees with itself in all of them."""
    ids = torch.arange(10)[None] % 3
    for window in (2, 3, 4, 10, 50):
        found = compare(Fixed(1, 2, 3), Fixed(1, 2, 3), ids, window)
        assert (found.tokens, found.top1_agreement) == (9, 1)
        assert found.kl_divergence == pytest.approx(0, abs=1e-6)


def run(asked: ModelRequest, variant: str = "base", **changes: Any) -> dict[str, Any]:
    """The final row of a run."""
    sink = ListSink()
    workload = replace(WORKLOAD, variant=parse(variant), **changes)
    profiling.profile(asked, CpuDevice(), "fp32", workload, sink)
    return sink.rows("runs")[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ModelRequest:
    """A model that has learnt its text."""
    folder = pretrained_folder(tmp_path_factory.mktemp("trained"))
    return ModelRequest(str(folder), "folder", "pretrained")


def test_the_unchanged_model_loses_nothing(trained: ModelRequest) -> None:
    """Both perplexities are one, every first choice agrees, and the divergence is none."""
    row = run(trained)
    assert row["perplexity"] == pytest.approx(row["baseline_perplexity"])
    assert row["perplexity"] < 3  # of 13 words: it has learnt something
    assert row["top1_agreement"] == 1
    assert row["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert row["quality_tokens"] == len(TEXT.split()) - 1
    assert row["quality_baseline"] == "base, fp32"
    assert row["quality_unknown"] is None


def test_pruning_costs_more_than_int8(trained: ModelRequest) -> None:
    """Eight bits move the distribution a little, taking nine in ten weights out a lot."""
    int8, pruned = run(trained, "int8-weight-only"), run(trained, "pruned-90")
    assert 0 < int8["kl_divergence"] < 0.05 < pruned["kl_divergence"]
    assert pruned["perplexity"] > int8["perplexity"] > 0
    assert pruned["top1_agreement"] < int8["top1_agreement"]


@pytest.mark.parametrize(
    ("config", "reason"), [(TINY_GPT2, "random weights"), (TINY_BERT, "random weights")], ids=["gpt2", "bert"]
)
def test_random_weights_have_no_quality(config: dict[str, Any], reason: str) -> None:
    """Every column is NULL and the reason is there."""
    row = run(request(config))
    assert all(row[name] is None for name in COLUMNS)
    assert row["quality_unknown"].startswith(reason)


def test_without_a_text_the_reason_says_what_to_give(trained: ModelRequest) -> None:
    """The option is named."""
    row = run(trained, quality_text=None)
    assert "--quality-text" in row["quality_unknown"]
    assert row["perplexity"] is None


def test_an_empty_text_is_refused(trained: ModelRequest) -> None:
    """Before anything is claimed about it."""
    with pytest.raises(WorkloadRefused, match="text to measure quality on is empty"):
        run(trained, quality_text="  \n")


def test_outputs_are_kept_only_when_asked_for(trained: ModelRequest) -> None:
    """Token ids and text of what was generated with keep_outputs; the prompt's digest always."""
    for keep in (False, True):
        sink = ListSink()
        workload = replace(WORKLOAD, prompt="the cat sat on", new_tokens=3, keep_outputs=keep)
        profiling.profile(trained, CpuDevice(), "fp32", workload, sink)
        assert len(sink.rows("runs")[-1]["prompt_sha256"]) == 64
        rows = sink.rows("outputs")
        assert len(rows) == (1 if keep else 0)
    assert len(rows[0]["token_ids"]) == 3
    assert rows[0]["text"].startswith("the ")  # "... sat on the mat" or "... the log"


def folder_with(tmp_path: Path, trained: ModelRequest, change: Any) -> ModelRequest:
    """A copy of the trained folder whose weights were changed."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(trained.name, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return ModelRequest(str(folder), "folder", "pretrained")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path, trained: ModelRequest) -> None:
    """With random numbers in their place the model would say nothing."""
    asked = folder_with(tmp_path, trained, lambda weights: weights.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights, the first transformer\.h\.1\.mlp"):
        run(asked)


def test_weights_of_another_shape_are_refused(tmp_path: Path, trained: ModelRequest) -> None:
    """A checkpoint of another size of the model."""
    asked = folder_with(tmp_path, trained, lambda w: w.update({"transformer.ln_f.bias": torch.zeros(7)}))
    with pytest.raises(ValueError, match=r"transformer\.ln_f\.bias|shape"):
        run(asked)


def test_weights_the_model_does_not_have_are_told(tmp_path: Path, trained: ModelRequest) -> None:
    """They are left out, and the run's notes say so."""
    asked = folder_with(tmp_path, trained, lambda w: w.update({"adapter.weight": torch.zeros(7)}))
    assert "adapter.weight" in run(asked)["variant_notes"]


def test_a_pickled_checkpoint_is_refused(tmp_path: Path, trained: ModelRequest) -> None:
    """Reading one can run code: the way to safetensors is told."""
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(trained.name, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no \.safetensors weights.*save_pretrained"):
        run(ModelRequest(str(folder), "folder", "pretrained"))


def test_nan_in_the_outputs_is_stored(tmp_path: Path, trained: ModelRequest) -> None:
    """A broken weight makes every number NaN: the times are true, the run says what came out."""
    asked = folder_with(tmp_path, trained, lambda w: w["transformer.ln_f.bias"].fill_(float("nan")))
    assert run(asked, quality_text=None)["outputs_finite"] is False
    assert run(trained, quality_text=None)["outputs_finite"] is True
