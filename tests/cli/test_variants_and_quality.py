"""`roofleet profile` with variants, attention, a text for quality, and what it says of mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.pretrained import TEXT, pretrained_folder
from tests.support import roofleet, used

SHORT = ("--prompt-tokens", "8", "--new-tokens", "3", "--iterations", "2", "--warmup", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with its tokenizer."""
    return pretrained_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for the whole file."""
    return used(tmp_path_factory.mktemp("data"))


def test_a_variant_is_told_with_what_it_costs(model: Path, data: Path, tmp_path: Path) -> None:
    """The summary names the variant, what it was not applied to, and its price in quality."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    answer = roofleet(
        "profile",
        str(model),
        *SHORT,
        "--variant",
        "int8-weight-only",
        "--quality-text",
        str(text),
        data=data,
    )
    assert answer.returncode == 0, answer.stderr
    for part in ("int8-weight-only", "lm_head", "perplexity", "divergence"):
        assert part in answer.stdout, part
    assert "Traceback" not in answer.stderr
    assert "Failed to load" not in answer.stderr
    assert "USDT" not in answer.stderr


def test_the_row_for_scripts_has_variant_and_quality(model: Path, data: Path) -> None:
    """--json prints one object with the columns of run_summary."""
    answer = roofleet(
        "profile", str(model), *SHORT, "--variant", "pruned-50+static-cache", "--json", data=data
    )
    row = json.loads(answer.stdout)
    assert row["variant"] == "pruned-50+static-cache"
    assert row["perplexity"] is None
    assert "--quality-text" in row["quality_unknown"]


def test_generated_text_is_kept_only_when_asked_for(model: Path, data: Path) -> None:
    """`outputs` has the text of the run that was told to keep it, and nothing of the other."""
    prompt = ("--prompt", "the cat sat on", "--new-tokens", "3", "--iterations", "1", "--warmup", "0")
    for keep in ((), ("--keep-outputs",)):
        assert roofleet("profile", str(model), *prompt, *keep, data=data).returncode == 0
    found = roofleet("sql", "SELECT text FROM outputs", "--format", "json", data=data)
    rows = json.loads(found.stdout)
    assert len(rows) == 1
    assert rows[0]["text"].startswith("the")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--variant", "int3"), "there is no variant 'int3'. There are base, int8-dynamic"),
        (("--variant", "compile+compile-blocks"), "says twice what is compiled"),
        (("--attention", "magic"), "does not offer attention 'magic'; it offers eager, sdpa"),
        (("--dtype", "fp64"), "fp32"),
        (("--quality-text", "/nowhere/text.txt"), "could not be read as text"),
        (("--prompt-tokens", "5000"), "positions for 64"),
        (("--batch-size", "99999999999"), "the most is 2,147,483,647"),
    ],
)
def test_a_mistake_is_one_line_with_what_there_is(
    model: Path, data: Path, options: tuple[str, ...], said: str
) -> None:
    """Status 2, no trace, and the message says what was given and what would do."""
    answer = roofleet("profile", str(model), *SHORT, *options, data=data)
    assert answer.returncode == 2, answer.stderr
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_prompt_without_a_tokenizer_is_said(data: Path) -> None:
    """A catalogue model has none on a machine without network."""
    answer = roofleet("profile", "gpt2", "--prompt", "hello", data=data)
    assert answer.returncode == 2
    assert "needs the tokenizer of 'gpt2'" in answer.stderr


def test_a_cut_off_checkpoint_is_a_mistake_and_no_trace(model: Path, data: Path, tmp_path: Path) -> None:
    """A copy that stopped half-way is said in one line."""
    folder = tmp_path / "cut"
    shutil.copytree(model, folder)
    os.truncate(folder / "model.safetensors", 3000)
    answer = roofleet("profile", str(folder), *SHORT, data=data)
    assert answer.returncode == 2
    assert f"{folder} could not be loaded" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_missing_tokenizer_is_said_before_anything_is_measured(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """transformers makes an empty one up from the configuration, which is none."""
    folder = tmp_path / "bare"
    shutil.copytree(model, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--quality-text", str(tmp_path / "text.txt"))
    answer = roofleet("profile", str(folder), *SHORT, *text, data=data)
    assert answer.returncode == 2
    assert "needs the tokenizer" in answer.stderr
    assert "measuring" not in answer.stderr


def test_sigterm_ends_a_run_as_ctrl_c_does(model: Path, tmp_path: Path) -> None:
    """What a scheduler sends leaves the run stored as cancelled."""
    command = ("profile", str(model), *SHORT[:4], "--iterations", "100000")
    answer = roofleet(*command, data=used(tmp_path), stop=("measuring", signal.SIGTERM))
    assert answer.returncode == 130
    found = roofleet("sql", "SELECT status FROM runs", "--format", "json", data=tmp_path)
    assert json.loads(found.stdout) == [{"status": "cancelled"}]
