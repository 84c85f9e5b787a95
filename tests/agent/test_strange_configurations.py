"""Configurations and tokenizers that are mistakes, or worse: refused in words, before anything grows."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import TINY_GPT2, TINY_LLAMA, request
from tokenizers import Tokenizer, models, normalizers

from roofleet_agent.engines.checkpoints import load_config, load_model, load_tokenizer
from roofleet_agent.errors import AgentError, ModelRefused, WorkloadRefused
from roofleet_agent.workload import ModelRequest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 20_000}, "20,000"),
        ({"num_hidden_layers": 10**30}, "at most 4,096"),
        ({"num_local_experts": 10**6, "model_type": "mixtral"}, "num_local_experts"),
        ({"layer_types": ["full_attention"] * 20_000}, "20,?000"),
    ],
)
def test_a_configuration_without_end_is_refused_before_it_is_built(change: dict[str, Any], says: str) -> None:
    """The number and its name are told."""
    with pytest.raises(ModelRefused, match=says):
        load_config(request({**TINY_LLAMA, **change}))


WRONG = ["a word", -3, 0, 1.5, None, [], {}, True, 2**70]


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "hidden_act"])
def test_a_value_of_a_wrong_type_is_refused_in_words(name: str, value: Any) -> None:
    """Whatever a configuration holds, the model is built or one of our errors says why not."""
    config = {**TINY_LLAMA, name: value}
    asked = request(config)
    with contextlib.suppress(AgentError):
        load_model(asked, load_config(asked), "generate", torch.device("meta"), "fp32", None)


def test_a_configuration_of_a_wrong_form_is_refused_in_words(tmp_path: Path) -> None:
    """No object, an unknown kind, too many bytes."""
    for text in ("[]", "{}", '"gpt2"', '{"model_type": 5}', '{"model_type": ["gpt2"]}', "{" * 10_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(AgentError):
            load_config(ModelRequest("odd", "folder", "random", checkpoint=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2) + " " * 9_000_000)
    with pytest.raises(ModelRefused, match="bytes"):
        load_config(ModelRequest("long", "folder", "random", checkpoint=str(tmp_path)))


def test_a_tokenizer_that_makes_a_text_without_end_is_refused(tmp_path: Path) -> None:
    """Three lines of it would make a gigabyte of one letter."""
    words = {letter: number for number, letter in enumerate("abcdef")}
    for growth, fits in ((2, True), (1000, False)):
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("a", "a" * growth)] * 3)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2))
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        asked = ModelRequest("grows", "folder", "random", checkpoint=str(tmp_path))
        if fits:
            assert load_tokenizer(asked)("a")["input_ids"]
        else:
            with pytest.raises(WorkloadRefused, match="letters of one"):
                load_tokenizer(asked)
