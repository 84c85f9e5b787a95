"""What is true of the model catalogue: names find models, and configurations build the published model.

The parameter counts in `models.toml` are the ones published for the checkpoints (for DeepSeek-V3 less the
routing biases, see there). Every one was verified by building the model on torch's meta device, which needs
no memory, with transformers 5.23 and torch 2.13; the tests do so again with whatever versions are installed.
"""

import re
import subprocess
import sys
from typing import Any

import pytest

from roofleet_analysis.catalogs.models import ModelEntry, filter_models, find_model, models, nearest_models

EVERY_MODEL = pytest.mark.parametrize("entry", models(), ids=lambda entry: entry.name)


def model(name: str) -> ModelEntry:
    found = find_model(name)
    assert found is not None, f"{name} is not in the catalogue"
    return found


def transformers_config(entry: ModelEntry) -> Any:
    transformers = pytest.importorskip("transformers")
    config = entry.config_copy()
    return transformers.AutoConfig.for_model(config.pop("model_type"), **config)


def build_on_meta(entry: ModelEntry) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    classes = {"generate": transformers.AutoModelForCausalLM, "encode": transformers.AutoModel}
    config = transformers_config(entry)
    two_sided = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else None
    with torch.device("meta"):
        return (two_sided or classes[entry.task]).from_config(config)


# ---------------------------------------------------------------------- the entries


def test_the_catalogue_holds_the_families_that_people_compare() -> None:
    """Causal models dense and of experts, a scan, encoders, and one with an encoder and a decoder."""
    decoders = "gpt2 opt bloom falcon llama mistral qwen2 qwen3 gemma2 gemma3_text phi3 mamba"
    mixtures = "mixtral qwen3_moe gpt_oss deepseek_v3"
    encoders = "bert distilbert mobilebert roberta"
    families = {"t5", *decoders.split(), *mixtures.split(), *encoders.split()}
    assert {entry.model_type for entry in models()} == families


def test_no_two_models_answer_to_one_name() -> None:
    """A name or alias belongs to one model only, whatever its case and hyphens."""
    keys = [
        name.casefold().replace("_", "-").replace(" ", "-")
        for entry in models()
        for name in {entry.name, *entry.aliases}
    ]
    assert len(keys) == len(set(keys))


@EVERY_MODEL
def test_every_entry_says_where_its_figures_come_from(entry: ModelEntry) -> None:
    """Each model names its hub id, the address of its published configuration, a licence and a known task."""
    organisation, _, repository = entry.hub_id.partition("/")
    assert organisation
    assert repository
    assert entry.source == f"https://huggingface.co/{entry.hub_id}/blob/main/config.json"
    assert entry.licence
    assert entry.task in ("generate", "encode")


# ---------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("gpt2", "gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("meta-llama/Llama-2-7b-hf", "Llama-2-7b"),
        ("Llama-3.1-405B", "Llama-3.1-405B"),
        ("llama_3.1_8b", "Llama-3.1-8B"),
        ("BERT base uncased", "bert-base-uncased"),
        (" Qwen/Qwen3-8B ", "Qwen3-8B"),
    ],
)
def test_a_model_is_found_by_name_or_alias(asked: str, found: str) -> None:
    """Names and hub ids find their model: case does not matter, underscores and spaces equal hyphens."""
    assert model(asked).name == found


def test_an_unknown_model_is_none() -> None:
    """A name that is not in the catalogue finds nothing, even when it begins like one that is."""
    assert find_model("gpt2-huge") is None
    assert find_model("") is None


@pytest.mark.parametrize(
    ("asked", "best"),
    [
        ("gpt-2", "gpt2"),
        ("lama-2-7b", "Llama-2-7b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("mixtral8x7b", "Mixtral-8x7B"),
    ],
)
def test_a_misspelt_name_suggests_the_nearest(asked: str, best: str) -> None:
    """The first suggestion for a name with a slip, or with a suffix, is the model that was meant."""
    assert nearest_models(asked)[0] == best


def test_suggestions_are_few_and_different() -> None:
    """At most n suggestions come, each model once, and none where nothing looks alike."""
    suggestions = nearest_models("llama-3.1", n=2)
    assert len(suggestions) == len(set(suggestions)) == 2
    assert nearest_models("zzzzzz") == []


def test_the_filter_looks_in_names_aliases_and_architectures() -> None:
    """A piece of a name, of a hub id or of a model_type selects models; no text selects all."""
    gpt2_family = {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
    assert {entry.name for entry in filter_models("GPT2-")} == gpt2_family
    assert "Mistral-7B" in [entry.name for entry in filter_models("mistralai/")]
    assert [entry.name for entry in filter_models("deepseek_v3")] == ["DeepSeek-V3"]
    assert filter_models("") == list(models())
    assert filter_models("zzzzzz") == []


# ---------------------------------------------------------------------- the configurations


@EVERY_MODEL
def test_every_model_has_the_published_number_of_parameters(entry: ModelEntry) -> None:
    """Built on the meta device, each model has exactly its published parameters, tied ones counted once."""
    built = build_on_meta(entry)
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in built.parameters()) == entry.parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("bert-base-uncased", 109_482_240),
        ("Llama-2-7b", 6_738_415_616),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.1-405B", 405_853_388_800),
        ("Mistral-7B", 7_241_732_096),
        ("Mixtral-8x7B", 46_702_792_704),
        # 671,026,419,200 published, less 58 routed layers * 256 routing biases = 14,848
        ("DeepSeek-V3", 671_026_404_352),
    ],
)
def test_well_known_counts_stand_in_the_data(name: str, parameters: int) -> None:
    """The counts that everyone quotes are the ones in the file."""
    assert model(name).parameters == parameters


def test_gpt2_is_its_matrices() -> None:
    """The count of GPT-2 is the sum of its embeddings, 12 blocks and last norm; the head is tied."""
    config = model("gpt2").config
    d, v, t, layers = config["n_embd"], config["vocab_size"], config["n_positions"], config["n_layer"]
    embeddings = v * d + t * d  # 50257 * 768 + 1024 * 768 = 39,383,808
    attention = (d * 3 * d + 3 * d) + (d * d + d)  # 1,771,776 + 590,592 = 2,362,368
    mlp = (d * 4 * d + 4 * d) + (4 * d * d + d)  # 2,362,368 + 2,360,064 = 4,722,432
    norms = 2 * 2 * d  # 3,072
    assert embeddings + layers * (attention + mlp + norms) + 2 * d == model("gpt2").parameters


def test_llama_3_1_scales_its_rotary_embedding() -> None:
    """The published rope_scaling and rope_theta arrive together in transformers' rope_parameters."""
    assert transformers_config(model("Llama-3.1-8B")).rope_parameters == {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_deepseek_v3_scales_its_rotary_embedding() -> None:
    """The older spelling of rope_scaling, with `type`, arrives as yarn with its base."""
    rope = transformers_config(model("DeepSeek-V3")).rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("yarn", 40, 10_000)
    assert rope["original_max_position_embeddings"] == 4096


@pytest.mark.parametrize(
    ("name", "theta"),
    [("Llama-2-7b", 10_000.0), ("Mistral-7B", 10_000.0), ("Mixtral-8x7B", 1e6), ("Qwen3-8B", 1e6)],
)
def test_the_rotary_base_arrives(name: str, theta: float) -> None:
    """The published rope_theta is the base that transformers uses."""
    assert transformers_config(model(name)).rope_parameters["rope_theta"] == theta


def test_sliding_windows_are_the_published_ones() -> None:
    """Mistral v0.1 and Gemma 2 attend to windows of 4,096, Phi-3 to 2,047; Mixtral and Qwen to everything."""
    windows = {
        name: transformers_config(model(name)).sliding_window
        for name in (
            "Mistral-7B",
            "gemma-2-2b",
            "Phi-3-mini",
            "Mixtral-8x7B",
            "Qwen2.5-7B",
            "Qwen3-8B",
        )
    }
    assert windows == {
        "Mistral-7B": 4096,
        "gemma-2-2b": 4096,
        "Phi-3-mini": 2047,
        "Mixtral-8x7B": None,
        "Qwen2.5-7B": None,
        "Qwen3-8B": None,
    }


def test_gemma_2_slides_in_every_other_layer() -> None:
    """Gemma 2 alternates windowed and full attention, beginning with a window."""
    kinds = transformers_config(model("gemma-2-2b")).layer_types
    assert kinds == ["sliding_attention", "full_attention"] * 13


def test_heads_need_not_divide_the_hidden_size() -> None:
    """Qwen3-0.6B has 16 heads of 128 on a hidden size of 1,024, so its query matrix is 1,024 x 2,048."""
    attention = build_on_meta(model("Qwen3-0.6B")).model.layers[0].self_attn
    assert tuple(attention.q_proj.weight.shape) == (16 * 128, 1024)
    assert tuple(attention.k_proj.weight.shape) == (8 * 128, 1024)


@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-large-uncased", "roberta-base"])
def test_encoders_of_the_bert_kind_have_a_pooler(name: str) -> None:
    """The bare encoder ends in the pooler of the published checkpoint."""
    assert build_on_meta(model(name)).pooler is not None


@pytest.mark.parametrize(
    ("name", "dtype"), [("Llama-2-7b", "float16"), ("Llama-3.1-8B", "bfloat16"), ("gemma-2-2b", "float32")]
)
def test_a_model_is_built_in_its_published_dtype(name: str, dtype: str) -> None:
    """Unless told otherwise, transformers builds the model in the dtype in which it was published."""
    assert str(next(build_on_meta(model(name)).parameters()).dtype) == f"torch.{dtype}"


# ---------------------------------------------------------------------- being data


@EVERY_MODEL
def test_loading_a_model_leaves_the_catalogue_as_it_was(entry: ModelEntry) -> None:
    """transformers writes into the tables that it is given, but never into the catalogue's."""
    before = entry.config_copy()
    transformers_config(entry)
    assert entry.config_copy() == before
    assert "model_type" in entry.config


def test_reading_the_catalogue_imports_neither_torch_nor_transformers() -> None:
    """The catalogue works where only the analysis is installed."""
    program = (
        "import sys; from roofleet_analysis.catalogs import hardware, models;"
        "models.models(); hardware.hardware();"
        "print(sorted({'torch', 'transformers', 'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_storage_that_differs_from_the_configuration_is_told() -> None:
    """gpt-oss is published in mxfp4 and DeepSeek-V3 in fp8: which layers, how many bits a number with the
    scales, and where that is written."""
    stored = {entry.name: entry.storage for entry in models() if entry.storage is not None}
    assert {name: storage.dtype for name, storage in stored.items()} == {
        "DeepSeek-V3": "fp8",
        "gpt-oss-20b": "mxfp4",
    }
    for storage in stored.values():
        assert storage.source.startswith("https://")
        assert re.compile(storage.layers)
    # a block of 32 numbers takes 4 bits each and a scale of 8
    assert stored["gpt-oss-20b"].stored_bytes(32) == 17
    # a block of 128 x 128 takes a byte each and a scale of 4 bytes
    assert stored["DeepSeek-V3"].stored_bytes(128 * 128) == 128 * 128 + 4
