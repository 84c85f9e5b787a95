"""Tokens a model generates: the likeliest each time, and the rows they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def likeliest(logits: torch.Tensor | None) -> torch.Tensor:
    """logits [batch, positions, vocabulary] -> token ids [batch, 1], of the last position."""
    assert logits is not None, "a step comes first"
    with torch.inference_mode():
        return logits[:, -1:].argmax(dim=-1)


def output_rows(
    tokens: Sequence[torch.Tensor], text_of: Callable[[list[int]], str] | None = None
) -> list[dict[str, Any]]:
    """Rows of `outputs`, without the run, of token ids [batch, 1] in the order they were generated."""
    sequences = torch.cat(list(tokens), dim=1).tolist()
    return [
        {"sequence_index": index, "token_ids": ids, "text": text_of(ids) if text_of else None}
        for index, ids in enumerate(sequences)
    ]
