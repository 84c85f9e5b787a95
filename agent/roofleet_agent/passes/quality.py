"""What a variant costs in quality: perplexity, divergence and agreement with the baseline on a text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from roofleet_agent.engines.base import DTYPE_BYTES, Engine, Session
from roofleet_agent.engines.checkpoints import load_config, load_tokenizer, published_dtype
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.passes.base import Found, Subject, of_run
from roofleet_agent.storage import stored_bytes
from roofleet_agent.variants import BASE, Variant
from roofleet_agent.workload import ModelRequest, Workload

WINDOW_TOKENS = 512
MOST_TOKENS = 16_384


@dataclass(frozen=True)
class Quality:
    """Means over `tokens` predicted tokens; divergence in nats, agreement a share of equal first choices."""

    perplexity: float
    baseline_perplexity: float
    kl_divergence: float
    top1_agreement: float
    tokens: int


def quality(subject: Subject) -> Iterator[Found]:
    """The quality columns of `runs`; where they are NULL, `quality_unknown` says why.

    The baseline is the unchanged model in the dtype its checkpoint was published in.
    """
    yield of_run(**_columns(subject))


def _columns(subject: Subject) -> dict[str, Any]:
    request, session, workload = subject.request, subject.session, subject.workload
    if reason := _unknown(request, session, workload):
        return {"quality_unknown": reason}
    assert workload.quality_text is not None
    config = load_config(request)
    dtype = published_dtype(config)
    room = subject.device.info.memory_bytes
    needed = stored_bytes(session.module) + session.parameters * DTYPE_BYTES[dtype]
    if room is not None and needed > room:
        return {"quality_unknown": "the device has no room for the baseline beside the model"}
    subject.progress("quality", 0.98)
    try:
        found = _against_baseline(subject.engine, request, session, subject.torch_device, workload, dtype)
    except (WorkloadRefused, RuntimeError, MemoryError) as error:  # the run is measured, and worth keeping
        return {"quality_unknown": f"it could not be measured: {str(error).partition(chr(10))[0]}"}
    if found is None:
        return {"quality_unknown": "the text has fewer than two tokens"}
    if not math.isfinite(found.kl_divergence) or math.isnan(found.perplexity):
        return {"quality_unknown": "the model's outputs are not finite"}
    return {
        "perplexity": found.perplexity,
        "baseline_perplexity": found.baseline_perplexity,
        "kl_divergence": found.kl_divergence,
        "top1_agreement": found.top1_agreement,
        "quality_tokens": found.tokens,
        "quality_baseline": f"{BASE}, {dtype}",
    }


def _against_baseline(
    engine: Engine,
    request: ModelRequest,
    session: Session,
    device: torch.device,
    workload: Workload,
    dtype: str,
) -> Quality | None:
    """The quality of a loaded model; None for a text of fewer than two tokens."""
    ids = load_tokenizer(request)(workload.quality_text, return_tensors="pt")["input_ids"][:, :MOST_TOKENS]
    if ids.shape[1] < 2:
        return None
    plain = replace(workload, variant=Variant(), attention=None)
    baseline = engine.load(request, device, dtype, plain)
    try:
        config: Any = session.module.config
        most = getattr(config.get_text_config(), "max_position_embeddings", None) or WINDOW_TOKENS
        return compare(session.module, baseline.module, ids.to(device), min(WINDOW_TOKENS, most))
    finally:
        baseline.close()


def _unknown(request: ModelRequest, session: Session, workload: Workload) -> str | None:
    if request.weights == "random":
        return "random weights: what they predict means nothing"
    if session.task != "generate" or getattr(session.module.config, "is_encoder_decoder", False):
        return "not a model that predicts the next token of a text"
    if workload.quality_text is None:
        return "no text was given to measure it on (--quality-text FILE)"
    return None


def compare(model: Any, baseline: Any, ids: torch.Tensor, window: int) -> Quality:
    """ids [1, tokens] -> both models' predictions of every token from those before it in its window.

    perplexity = exp(-mean log p(token)); divergence = mean over positions of sum p_b (log p_b - log p_m).
    """
    loss = base_loss = divergence = 0.0
    agreed = tokens = 0
    for part in _windows(ids, window):
        theirs, ours = _log_probabilities(baseline, part), _log_probabilities(model, part)
        wanted = part[0, 1:, None]
        loss -= float(ours.gather(1, wanted).sum())
        base_loss -= float(theirs.gather(1, wanted).sum())
        divergence += float(functional.kl_div(ours, theirs, reduction="sum", log_target=True))
        agreed += int((ours.argmax(1) == theirs.argmax(1)).sum())
        tokens += wanted.shape[0]
    return Quality(
        _exp(loss / tokens), _exp(base_loss / tokens), divergence / tokens, agreed / tokens, tokens
    )


def _windows(ids: torch.Tensor, window: int) -> Iterator[torch.Tensor]:
    # each window begins with the last token of the one before, so that every token but the first is predicted
    for start in range(0, ids.shape[1] - 1, window - 1):
        yield ids[:, start : start + window]


def _log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """ids [1, tokens] -> log p [tokens - 1, vocabulary] of the tokens after the first, in fp32."""
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        return functional.log_softmax(logits.float(), dim=-1)


def _exp(value: float) -> float:
    return math.inf if value >= 700 else math.exp(value)
