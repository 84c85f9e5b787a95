"""A tiny language model with a tokenizer, trained for a moment on a text, as a folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

TEXT = "the cat sat on the mat and the dog sat on the log while the bird sang to the cat and the dog " * 12


def pretrained_folder(folder: Path) -> Path:
    """Writes model and tokenizer as save_pretrained does; the model has learnt TEXT by heart."""
    for part in _trained():
        part.save_pretrained(folder)
    return folder


@lru_cache
def _trained(steps: int = 80) -> tuple[Any, Any]:
    """Tokenizer and model, trained once a process."""
    words = sorted(set(TEXT.split()))
    vocabulary = {word: index for index, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=len(vocabulary),
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config)
    ids = fast(TEXT, return_tensors="pt")["input_ids"][0]
    batch = torch.stack([ids[start : start + 32] for start in range(0, len(ids) - 32, 16)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    return fast, model.eval()
