"""What a user types and what is meant by it: one model has one name and one id."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.support import TINY_GPT2, TINY_WORKLOAD
from transformers import AutoModelForCausalLM, GPT2Config

from roofleet.naming.models import resolve
from roofleet_agent.engines.transformers import TransformersEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny GPT-2."""
    made = tmp_path_factory.mktemp("models") / "tiny"
    config = GPT2Config(**{k: v for k, v in TINY_GPT2.items() if k != "model_type"})
    AutoModelForCausalLM.from_config(config).save_pretrained(made)
    return made


def test_a_folder_is_one_model_however_its_path_is_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is the folder's own, and what identifies the model depends on neither path nor dtype."""
    monkeypatch.chdir(folder.parent)
    typed = ("./tiny", "tiny/", str(folder), f"../{folder.parent.name}/tiny")
    requests = [resolve(name, None) for name in typed]
    assert {request.name for request in requests} == {"tiny"}
    texts = set()
    for request, dtype in zip(requests, ("fp32", "bf16", "fp32", "fp16"), strict=True):
        session = TransformersEngine().load(request, torch.device("cpu"), dtype, TINY_WORKLOAD)
        texts.add(session.config_json)
    assert len(texts) == 1
    assert "transformers_version" not in texts.pop()


def test_a_folder_of_the_hubs_cache_has_the_hubs_name(folder: Path, tmp_path: Path) -> None:
    """There the folder's own name is a digest."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    assert resolve(str(snapshot), None).name == "owner/name"


def test_a_catalogue_model_has_the_catalogues_name() -> None:
    """However it is written, and by the hub's name too."""
    assert {resolve(name, None).name for name in ("gpt2", "GPT2", "openai-community/gpt2")} == {"gpt2"}
