"""The tree of layers: what is in sight, what folds, and the data between it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.data import Fleet

from roofleet_dashboard import queries
from roofleet_dashboard.figures.layer_tree import INPUTS, OUTPUT, Box, Flow, LayerTree, own_id
from roofleet_dashboard.figures.layered_layout import FRAME_HEAD, Place, bend, layered
from roofleet_dashboard.figures.network import elements, short_name
from roofleet_dashboard.figures.network_metrics import METRICS, Scale, values, whole


def tree_of(fleet: Fleet, run: str, phase: str) -> LayerTree:
    """The tree of a stored run."""
    names = ("network_layers", "network_order", "network_edges")
    return LayerTree(*(queries.rows(fleet.source, name, run, phase) for name in names))


def layer(path: str, calls: int | None = 1, **more: Any) -> dict[str, Any]:
    """A row of network_layers."""
    return {
        "path": path,
        "parent_path": None if path == "" else path.rpartition(".")[0],
        "layer_index": 0,
        "module_type": "Block" if path.rpartition(".")[2].isdigit() else "Module",
        "calls": calls,
        "ops": 0,
        "p50_ns": 10.0 if calls else None,
        "self_ns": 1.0 if calls else None,
        "flops": 0,
        "bytes": 0,
        "total_flops": 100,
        "total_bytes": 100,
        "peak_memory_bytes": 50 if calls else None,
    } | more


def edge(source: str, target: str, moved: int, tensors: int = 1) -> dict[str, Any]:
    """A row of network_edges."""
    return {"source_path": source, "target_path": target, "bytes": moved, "tensors": tensors}


def stacked() -> LayerTree:
    """A model of an embedding, three blocks of two layers each, and a head."""
    blocks = [f"body.h.{n}" for n in range(3)]
    inner = [f"{block}.{name}" for block in blocks for name in ("attn", "mlp")]
    paths = ["", "body", "body.embed", "body.h", *blocks, *inner, "head", "body.idle"]
    rows = [layer(path, calls=None if path in ("body.h", "body.idle") else 1) for path in paths]
    ran = ["body.embed", *inner, "head"]
    order = [{"path": path, "start_ns": place} for place, path in enumerate(ran)]
    edges = [edge(source, target, 100) for source, target in pairwise(ran)]
    edges += [edge("", "body.embed", 8), edge("head", "", 40), edge("body.embed", "body.h.0.mlp", 100)]
    return LayerTree(rows, order, edges)


def ids(boxes: list[Box]) -> list[str]:
    """The boxes in sight that hold no others."""
    return [leaf.id for box in boxes for leaf in box.leaves()]


def test_repeated_blocks_are_folded_at_first() -> None:
    """A model is first shown with the list of its blocks as one box, named with their number."""
    tree = stacked()
    opened = tree.closure(tree.first_open())
    assert opened == {"body"}
    assert ids(tree.boxes(opened)) == [INPUTS, "body.embed", "body.h", "head", OUTPUT]
    assert short_name(tree, "body.h") == "h × 3"
    assert short_name(tree, "body.h.1") == "h.1"


def test_opening_a_block_opens_what_it_is_in() -> None:
    """A link names the block; all that leads to it is open too."""
    tree = stacked()
    assert tree.closure(["body.h.1"]) == {"body", "body.h", "body.h.1"}
    assert ids(tree.boxes(tree.closure(["body.h.1"])))[2:6] == [
        "body.h.0",
        "body.h.1.attn",
        "body.h.1.mlp",
        "body.h.2",
    ]


def test_what_does_not_run_is_left_out() -> None:
    """A layer that no step calls is not drawn, and is counted."""
    tree = stacked()
    assert "body.idle" in tree.skipped
    assert "body.idle" not in tree.inside("body")


def test_a_name_that_does_not_exist_opens_nothing() -> None:
    """A link to a layer of another model is harmless."""
    assert stacked().closure(["nonsense.3", "head"]) == set()


def test_data_inside_a_folded_layer_is_not_shown() -> None:
    """Arrows run between boxes in sight; none leads from a box to itself."""
    tree = stacked()
    flows = tree.flows(tree.closure(tree.first_open()))
    assert {(f.source, f.target): f.bytes for f in flows} == {
        (INPUTS, "body.embed"): 8,
        ("body.embed", "body.h"): 100,  # read by two layers inside, but one tensor
        ("body.h", "head"): 100,
        ("head", OUTPUT): 40,
    }


def test_the_cache_of_the_blocks_adds_up() -> None:
    """What no layer made is a tensor of its own for each layer that reads it."""
    rows = [layer(""), layer("h", None), layer("h.0"), layer("h.1")]
    order = [{"path": "h.0", "start_ns": 0}, {"path": "h.1", "start_ns": 1}]
    tree = LayerTree(rows, order, [edge("", "h.0", 30), edge("", "h.1", 30), edge("h.0", "h.1", 0)])
    (flow,) = tree.flows(set())
    assert (flow.source, flow.target, flow.bytes, flow.tensors) == (INPUTS, "h", 60, 2)


def test_a_folded_list_has_the_sum_of_its_blocks() -> None:
    """A list of blocks is never called itself: its time is theirs, its peak the highest of theirs."""
    tree = stacked()
    assert whole(tree, "body.h", METRICS["time"]) == 30.0
    assert whole(tree, "body.h", METRICS["memory"]) == 50
    assert whole(tree, "body.h", METRICS["self"]) is None


def test_colours_run_from_zero_to_the_largest() -> None:
    """A sum begins at 0; a peak at the lowest, as all are near to one another."""
    found = {"a": 5.0, "b": 20.0, "c": None}
    assert [Scale(found, METRICS["time"]).fraction(v) for v in (0.0, 20.0, None)] == [0.0, 1.0, None]
    assert Scale(found, METRICS["memory"]).fraction(5.0) == 0.0


def test_the_network_shows_what_sql_gives(fleet: Fleet) -> None:
    """Every box carries the exact value of its row, for every metric and phase."""
    for phase in ("prefill", "decode"):
        tree = tree_of(fleet, fleet.gpt2_run, phase)
        opened = tree.closure(["transformer.h.0", "transformer.h.1.attn"])
        for metric in METRICS.values():
            found = values(tree, tree.boxes(opened), metric)
            nodes = {e["data"]["id"]: e["data"] for e in elements(tree, opened, metric, None)}
            for name, value in found.items():
                assert name not in nodes or nodes[name]["value"] == value
            block = tree.rows["transformer.h.1.mlp"]
            assert found["transformer.h.1.mlp"] == block[metric.whole]
            assert found[own_id("transformer.h.0")] == tree.rows["transformer.h.0"][metric.own]


def test_every_arrow_ends_at_a_box(fleet: Fleet) -> None:
    """Whatever is open, no arrow points to something that is not drawn, and no name is given twice."""
    for run, phase in ((fleet.gpt2_run, "prefill"), (fleet.gpt2_run, "decode"), (fleet.bert_run, "forward")):
        tree = tree_of(fleet, run, phase)
        for opened in (set(), tree.closure(tree.first_open()), tree.closure(tree.rows)):
            drawn = elements(tree, opened, METRICS["time"], None)
            names = [e["data"]["id"] for e in drawn]
            assert len(names) == len(set(names))
            for e in drawn:
                if "source" in e["data"]:
                    assert {e["data"]["source"], e["data"]["target"]} <= set(names)


def test_a_chosen_layer_that_is_folded_away_marks_the_box_it_is_in(fleet: Fleet) -> None:
    """A link to a layer inside a folded block shows where it is."""
    tree = tree_of(fleet, fleet.gpt2_run, "decode")
    drawn = elements(tree, tree.closure(["transformer.h"]), METRICS["time"], "transformer.h.1.mlp.c_fc")
    assert [e["data"]["id"] for e in drawn if "chosen" in e.get("classes", "")] == ["transformer.h.1"]


def _overlap(one: Place, other: Place) -> bool:
    return (
        abs(one.x - other.x) < (one.width + other.width) / 2 - 0.01
        and abs(one.y - other.y) < (one.height + other.height) / 2 - 0.01
    )


@given(st.data())
def test_no_two_boxes_overlap(data: st.DataObject) -> None:
    """Whatever is open and whatever flows where, every box has room of its own."""
    tree = stacked()
    opened = tree.closure(data.draw(st.sets(st.sampled_from(sorted(tree.rows)))))
    boxes = tree.boxes(opened)
    leaves = ids(boxes)
    ends = st.sampled_from(leaves)
    size = st.tuples(st.floats(80, 240), st.floats(20, 80))
    sizes = {name: data.draw(size) for name in leaves} | {f"{path}#head": (90.0, 24.0) for path in opened}
    pairs = data.draw(st.lists(st.tuples(ends, ends), max_size=8))
    flows = [*tree.flows(opened), *(Flow(s, t, 1, 1) for s, t in pairs)]
    places = list(layered(boxes, flows, sizes).values())
    assert len(places) == len(leaves) + len(opened)
    for number, one in enumerate(places):
        assert not any(_overlap(one, other) for other in places[number + 1 :])


def test_boxes_stand_in_the_order_they_run() -> None:
    """Data flows down the page."""
    tree = stacked()
    opened = tree.closure(["body.h.0"])
    sizes = dict.fromkeys(ids(tree.boxes(opened)), (100.0, 40.0))
    places = layered(
        tree.boxes(opened), tree.flows(opened), sizes | {f"{p}#head": (90.0, 24.0) for p in opened}
    )
    chain = [INPUTS, "body.embed", "body.h.0.attn", "body.h.0.mlp", "body.h.1", "body.h.2", "head", OUTPUT]
    heights = [places[name].y for name in chain]
    assert heights == sorted(heights)
    assert places["body.embed"].y - places["body#head"].y >= FRAME_HEAD / 2


def test_an_arrow_bends_around_a_box_in_its_way() -> None:
    """A straight arrow stays straight; one that would run through a box passes beside it."""
    above, below = Place(0, 0, 100, 40), Place(0, 400, 100, 40)
    assert bend(above, below, [Place(300, 200, 100, 40)]) == 0.0
    # The curve's middle is half of the distance away: beyond the box's half width of 50.
    assert abs(bend(above, below, [Place(0, 200, 100, 40)])) / 2 > 50
