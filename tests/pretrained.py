"""A tiny language model with a tokenizer, trained for a moment on a text, as a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

TEXT = "the cat sat on the mat and the dog sat on the log while the bird sang to the cat and the dog " * 12


def pretrained_folder(folder: Path, steps: int = 80) -> Path:
    """Writes model and tokenizer as save_pretrained does; the model has learnt TEXT by heart."""
    words = sorted(set(TEXT.split()))
    vocabulary = {word: index for index, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.save_pretrained(folder)
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
    model.eval().save_pretrained(folder)
    return folder
