"""`roofleet sweep`: a grid of runs that is stopped, gone on with, analysed and drawn."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_commands import mistake
from tests.support import TINY_LLAMA, collector, roofleet, used
from transformers import AutoModelForCausalLM, LlamaConfig

QUICK = ("--new-tokens", "3", "--iterations", "1", "--warmup", "0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(**{k: v for k, v in TINY_LLAMA.items() if k != "model_type"})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that the tests of this module share."""
    return used(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def swept(tiny: Path, data: Path) -> dict[str, Any]:
    """Two batches by three prompts, of which the last is longer than the model's 64 positions."""
    answer = roofleet(
        "sweep", str(tiny), "--batch-size", "1,3", "--prompt-tokens", "4,16,99", *QUICK, "--json", data=data
    )
    assert answer.returncode == 0, answer.stderr
    assert "6 of 6, batch 3, prompt tokens 99" in answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def rows(data: Path, sql: str) -> list[dict[str, Any]]:
    """What is stored."""
    answer = roofleet("sql", sql, "-f", "json", "--data", str(data), data=data)
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def test_every_point_is_a_run_of_the_sweep(swept: dict[str, Any], data: Path) -> None:
    """A run for each point, done with its times, or failed with its reason, and the sweep's own row."""
    sweep_id = swept["sweep_id"]
    stored = rows(data, f"SELECT * FROM run_summary WHERE sweep_id = '{sweep_id}'")
    assert len(stored) == len(swept["points"]) == 6
    assert {row["status"] for row in stored if row["prompt_tokens"] == 99} == {"failed"}
    assert all("positions for 64" in row["error"] for row in stored if row["status"] == "failed")
    for one in swept["points"]:
        (row,) = [row for row in stored if row["run_id"] == one["run"]["run_id"]]
        for option in ("batch_size", "prompt_tokens", "new_tokens", "dtype", "variant"):
            assert row[option] == one["point"][option]
        assert row["time_per_output_token_ns"] == one["run"]["time_per_output_token_ns"]
        assert (row["time_to_first_token_ns"] is None) == (one["error"] is not None)
    (sweep,) = rows(data, f"SELECT * FROM sweeps WHERE sweep_id = '{sweep_id}'")
    assert sweep["points"] == 6
    assert json.loads(sweep["axes"]) == swept["axes"]


def test_an_analysed_sweep_holds_what_a_measured_one_does(
    swept: dict[str, Any], tiny: Path, data: Path
) -> None:
    """The same grid traced on `meta`: no times, the same work, traffic and memory of every point."""
    answer = roofleet(
        "sweep", str(tiny), "--batch-size", "1,3", "--prompt-tokens", "4,16", "--new-tokens", "3",
        "--analyze", "--hardware", "h100-sxm", "--json", data=data,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    analysed = json.loads(answer.stdout)["points"]
    measured = [one["run"] for one in swept["points"] if one["run"]["status"] == "done"]
    assert len(analysed) == len(measured) == 4
    for one, run in zip(analysed, measured, strict=True):
        found = one["run"]
        assert found["status"] == "analyzed"
        assert found["device_name"] == "analysed, not run"
        assert found["time_to_first_token_ns"] is None
        same = ("first_flops", "decode_flops", "first_bytes", "decode_bytes", "held_weight_bytes",
                "held_kv_bytes", "held_activation_bytes", "peak_bytes", "peak_phase")  # fmt: skip
        assert {name: found[name] for name in same} == {name: run[name] for name in same}
        # decode is its middle step in both: of 3 new tokens the first of two
        assert found["decode_cached_tokens"] == run["decode_cached_tokens"] == one["point"]["prompt_tokens"]
        bounds = one["lower_bounds"]["h100-sxm"]
        assert bounds["prefill"]["bound"] == bounds["decode"]["bound"] == "memory"  # a tiny model's weights
        assert all(bound["lower_bound_ns"] > 0 for bound in bounds.values())
    assert not rows(data, "SELECT device_id FROM fleet_status WHERE device_name = 'analysed, not run'")


def test_numbers_of_the_configuration_can_be_varied(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Each combination is a model of its own with random weights; one that cannot be built is said with its
    reason; and the chart is a page that loads nothing from elsewhere."""
    chart = tmp_path / "chart.html"
    answer = roofleet(
        "sweep", str(tiny), "--set", "hidden_size=32,64,33", "--set", "num_hidden_layers=1,3", "--analyze",
        "--prompt-tokens", "4", "--new-tokens", "2", "--chart", str(chart), "--json", data=data,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)["points"]
    # tied to none, so of 32: embedding and head 2 x 101 x 32, last norm 32, and a layer of
    # 32 x (32 + 16 + 16 + 32) attention, 3 x 32 x 48 of the feed-forward part and 2 x 32 of norms
    built = {(one["point"]["hidden_size"], one["point"]["num_hidden_layers"]): one["run"] for one in found}
    names = {run["model_name"] for run in built.values() if run}
    assert names == {f"tiny (hidden_size {h}, num_hidden_layers {n})" for h in (32, 64) for n in (1, 3)}
    parameters = {
        row["name"]: row["parameters"] for row in rows(data, "SELECT DISTINCT name, parameters FROM models")
    }
    a_layer = 32 * 96 + 3 * 32 * 48 + 64
    assert parameters["tiny (hidden_size 32, num_hidden_layers 3)"] == 2 * 101 * 32 + 32 + 3 * a_layer
    assert all(one["error"] for one in found if one["point"]["hidden_size"] == 33)
    page = chart.read_text()
    assert "Peak memory" in page
    assert 'src="http' not in page


def test_a_sweep_is_stopped_and_gone_on_with(tiny: Path, data: Path) -> None:
    """Ctrl-C keeps what is done and says how to go on; --resume and the same command do the missing points
    only, whatever was cancelled on the way."""
    grid = ("--batch-size", "1,2,4", "--prompt-tokens", "4", "--dtype", "fp32,bf16")
    command = ("sweep", str(tiny), *grid, *QUICK)
    stopped = roofleet(*command, data=data, stop=("3 of 6", signal.SIGINT))
    assert stopped.returncode == 130
    said = stopped.stderr
    assert "Traceback" not in said
    sweep_id = said.split("--resume ")[1].split()[0]
    first = finished(data, sweep_id)
    assert 2 <= len(first) < 6

    again = roofleet(*command, "--json", data=data)  # the same command
    assert again.returncode == 0, again.stderr
    assert f"sweep {sweep_id}: {len(first)} of 6 points are done already" in again.stderr
    assert json.loads(again.stdout)["sweep_id"] == sweep_id
    whole = finished(data, sweep_id)
    assert len(whole) == 6
    assert first <= whole

    named = roofleet("sweep", "--resume", sweep_id, data=data)  # nothing is left to do
    assert named.returncode == 0, named.stderr
    assert "6 of 6 points" in named.stdout
    assert finished(data, sweep_id) == whole


def finished(data: Path, sweep_id: str) -> set[str]:
    """Ids of the runs of a sweep that are done."""
    found = rows(data, f"SELECT run_id FROM runs WHERE sweep_id = '{sweep_id}' AND status = 'done'")
    return {row["run_id"] for row in found}


def test_a_sweep_goes_to_a_collector(tiny: Path, tmp_path: Path) -> None:
    """Points arrive at a collector as they end, and a table is printed from what it has."""
    with collector(tmp_path / "collector") as running:
        answer = roofleet(
            "sweep", str(tiny), "--batch-size", "1,2", "--analyze", "--collector", running.grpc,
            "--prompt-tokens", "4", "--new-tokens", "2", data=tmp_path,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        assert "2 of 2 points, analysed and not run" in answer.stdout
        assert "Memory at the peak" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch-size", "1,,2"], "'1,,2' has an empty value"),
        (["--batch-size", "1,x"], "'x' is no whole number"),
        (["--batch-size", "0"], "at least 1"),
        (["--dtype", "fp32,int3"], "'int3' is not known: there are auto, fp32"),
        (["--variant", "base,int3"], "there is no variant 'int3'"),
        (["--set", "hiden_size=4"], "no number of that name"),
        (["--set", "hidden_size"], "NAME=N,N"),
        (["--set", "hidden_size=32", "--weights", "pretrained"], "leave one out"),
        (["--batch-size", ",".join(map(str, range(1, 202)))], "201 points, more than 200"),
        (["--chart", "chart.svg"], ".html"),
        (["--chart", "no/such/chart.html"], "there is no folder no/such"),
        (["--resume", "nothing"], "either MODEL, or --resume"),
    ],
)
def test_a_wrong_grid_is_a_mistake(arguments: list[str], says: str, tiny: Path, data: Path) -> None:
    """Status 2, the offending value and what to do; nothing is run."""
    assert says in mistake(roofleet("sweep", str(tiny), *arguments, data=data)).replace("\n", " ")


def test_a_sweep_that_is_not_there_cannot_be_gone_on_with(swept: dict[str, Any], data: Path) -> None:
    """The latest sweeps are named."""
    error = mistake(roofleet("sweep", "--resume", "nothing", data=data))
    assert "there is no sweep 'nothing'" in error
    assert "The latest are" in error


def test_a_sweep_without_any_result_fails(tiny: Path, data: Path) -> None:
    """Where every point is refused the status says so, and the reason is there."""
    answer = roofleet("sweep", str(tiny), "--prompt-tokens", "99,100", "--analyze", data=data)
    assert answer.returncode == 1
    assert "positions for 64" in answer.stdout


def test_a_few_points_of_one_size_take_turns(tiny: Path, data: Path) -> None:
    """Two attentions of one workload are one group; where one cannot run, the other is run by itself, and
    nothing but the one that cannot is stored as failed."""
    little = ("--prompt-tokens", "8", *QUICK, "--json")
    both = roofleet("sweep", str(tiny), "--attention", "sdpa,eager", *little, data=data)
    assert both.returncode == 0, both.stderr
    sweep_id = json.loads(both.stdout)["sweep_id"]
    stored = rows(data, f"SELECT status, turns_id FROM runs WHERE sweep_id = '{sweep_id}'")
    assert [row["status"] for row in stored] == ["done", "done"]
    assert len({row["turns_id"] for row in stored}) == 1
    assert stored[0]["turns_id"] is not None
    one = roofleet("sweep", str(tiny), "--attention", "sdpa,nowhere", *little, data=data)
    told = {point["point"]["attention"]: point["error"] for point in json.loads(one.stdout)["points"]}
    assert told["sdpa"] is None
    assert "nowhere" in told["nowhere"]
    sweep_id = json.loads(one.stdout)["sweep_id"]
    failed = rows(data, f"SELECT error FROM runs WHERE sweep_id = '{sweep_id}' AND status = 'failed'")
    assert all("nowhere" in row["error"] for row in failed)
