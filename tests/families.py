"""Tiny models of every family, as their published ones are laid out, with their matrix work by hand.

Unless said otherwise: 2 layers, 32 features, 4 heads of 8 over 2 of keys and values, 48 intermediate
features and 101 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SMALL = {
    "vocab_size": 101,
    "max_position_embeddings": 64,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = {"vocab_size": 101, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Shape:
    """One step: `batch` sequences, `tokens` new ones each, `cached` before them, a `prompt` of so many."""

    batch: int
    tokens: int
    cached: int
    prompt: int


@dataclass(frozen=True)
class Family:
    """A configuration; multiply-adds of a step; and what a layer's cache holds for a token, by layer.

    `kv` is pairs of numbers a token and the window; None for a model without a cache that grows.
    """

    config: dict[str, Any]
    products: Callable[[Shape], int]
    kv: tuple[tuple[int, int | None], ...] | None = None


def decoder(
    matrices: int, heads: int, widths: int, windows: tuple[int | None, int | None] = (None, None)
) -> Callable[[Shape], int]:
    """Multiply-adds of a causal model with 2 layers, 32 features and 101 tokens.

    `matrices`: elements of those that every token meets in both layers; `widths`: of a head, keys and values.
    Logits are made for the last position.
    """

    def products(s: Shape) -> int:
        total = s.batch * s.tokens * matrices
        for window in windows:
            total += s.batch * heads * s.tokens * reach(s, window) * widths
        return total + s.batch * 32 * 101

    return products


def reach(s: Shape, window: int | None) -> int:
    """Positions a new token is compared with. A window masks a prompt and bounds what is kept of it."""
    kept = s.cached if window is None else min(s.cached, window - 1)
    return kept + s.tokens


def encoder(matrices: int, heads: int, widths: int, pooler: int) -> Callable[[Shape], int]:
    """The same of an encoder, whose pooler sees the first position."""

    def products(s: Shape) -> int:
        attention = 2 * heads * s.tokens * s.tokens * widths
        return s.batch * (s.tokens * matrices + attention + pooler)

    return products


def deepseek(s: Shape) -> int:
    """Latents of queries 24 and of keys and values 16, 4 rotated features beside 8; values have 8."""
    a_token = 32 * 24 + 24 * 4 * (8 + 4) + 32 * (16 + 4) + 4 * 8 * 32
    # what is cached is the latent, so keys and values are made again for every position
    expanded = 16 * 4 * (8 + 8)
    dense, sparse = 3 * 32 * 48, 32 * 8 + (2 + 1) * 3 * 32 * 24
    seen = s.cached + s.tokens
    attention = 4 * s.tokens * seen * (8 + 4 + 8)
    return s.batch * (
        s.tokens * (2 * a_token + dense + sparse) + 2 * seen * expanded + 2 * attention + 32 * 101
    )


def mamba(s: Shape) -> int:
    """64 inner features with a state of 8 each, a kernel of 4, time steps of rank 2."""
    a_token = 32 * 2 * 64 + 64 * (2 + 8 + 8) + 2 * 64 + 64 * 8 + 64 * 32
    # the kernel is run over padding too: 3 more positions of a prompt, one more of a single token
    convolved = s.tokens + 3 if s.cached == 0 else 2
    return s.batch * (2 * (s.tokens * a_token + convolved * 64 * 4) + 32 * 101)


def t5(s: Shape) -> int:
    """2 heads of 12; an encoder and a decoder of 2 layers each with 48 intermediate features."""
    attention, mlp = 4 * 32 * 24, 2 * 32 * 48
    total = 0
    if s.cached == 0:  # the encoder, and the keys and values of its output for the decoder
        total += 2 * (s.tokens * (attention + mlp) + 2 * s.tokens * s.tokens * (12 + 12))
        total += 2 * s.tokens * 2 * 32 * 24
    generated = max(s.cached - s.prompt, -1) if s.cached else -1
    own = generated + 2  # those before it, the start, and the token itself
    # over a single position scores times values adds nothing up
    itself = 2 * own * (12 + 12) if own > 1 else 2 * 12
    total += 2 * (attention + 2 * 32 * 24 + mlp + itself + 2 * s.prompt * (12 + 12))
    return s.batch * (total + 32 * 101)


GPT2_MATRICES = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128)
LLAMA_MATRICES = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
WIDE_ATTENTION = 2 * 32 * 48 + 2 * 32 * 24  # 4 heads of 12 over 2
BERT_MATRICES = 2 * (4 * 32 * 32 + 2 * 32 * 64)
MOBILE_MATRICES = 48 * 32 + 2 * (
    2 * 32 * 16 + 3 * 16 * 16 + 32 * 16 + 4 * 2 * 16 * 32 + 16 * 32
)  # three neighbours; two bottlenecks, attention with wide values, four small networks, back again

FAMILIES = {
    "gpt2": Family(
        {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2}
        | {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64}
        | {"architectures": ["GPT2LMHeadModel"]},
        decoder(GPT2_MATRICES, 2, 16 + 16),
        ((2 * 32, None),) * 2,
    ),
    "opt": Family(
        SMALL
        | {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32}
        | {"architectures": ["OPTForCausalLM"]},
        decoder(2 * (4 * 32 * 32 + 2 * 32 * 48), 4, 8 + 8),
        ((2 * 32, None),) * 2,
    ),
    "bloom": Family(
        IDS
        | {"model_type": "bloom", "n_layer": 2, "hidden_size": 32, "n_head": 2}
        | {"architectures": ["BloomForCausalLM"]},
        decoder(GPT2_MATRICES, 2, 16 + 16),
        ((2 * 32, None),) * 2,
    ),
    "falcon": Family(  # all heads share one of keys and values
        IDS
        | {"model_type": "falcon", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
        | {"multi_query": True, "parallel_attn": True, "bias": False, "alibi": False}
        | {"architectures": ["FalconForCausalLM"]},
        decoder(2 * (32 * (32 + 2 * 8) + 32 * 32 + 2 * 32 * 128), 4, 8 + 8),
        ((2 * 8, None),) * 2,
    ),
    "llama": Family(
        SMALL | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        decoder(LLAMA_MATRICES, 4, 8 + 8),
        ((2 * 16, None),) * 2,
    ),
    "mistral": Family(
        SMALL | {"model_type": "mistral", "sliding_window": 6, "architectures": ["MistralForCausalLM"]},
        decoder(LLAMA_MATRICES, 4, 8 + 8, (6, 6)),
        ((2 * 16, 6),) * 2,
    ),
    "qwen2": Family(
        SMALL | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        decoder(LLAMA_MATRICES, 4, 8 + 8),
        ((2 * 16, None),) * 2,
    ),
    "qwen3": Family(
        SMALL | {"model_type": "qwen3", "head_dim": 12, "architectures": ["Qwen3ForCausalLM"]},
        decoder(2 * (WIDE_ATTENTION + 3 * 32 * 48), 4, 12 + 12),
        ((2 * 24, None),) * 2,
    ),
    "gemma2": Family(
        SMALL
        | {"model_type": "gemma2", "head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 12}
        | {"architectures": ["Gemma2ForCausalLM"]},
        decoder(2 * (WIDE_ATTENTION + 3 * 32 * 48), 4, 12 + 12, (6, None)),
        ((2 * 24, 6), (2 * 24, None)),
    ),
    "gemma3": Family(
        SMALL
        | {"model_type": "gemma3_text", "head_dim": 12, "sliding_window": 6, "query_pre_attn_scalar": 12}
        | {"layer_types": ["sliding_attention", "full_attention"], "architectures": ["Gemma3ForCausalLM"]},
        decoder(2 * (WIDE_ATTENTION + 3 * 32 * 48), 4, 12 + 12, (6, None)),
        ((2 * 24, 6), (2 * 24, None)),
    ),
    "phi3": Family(
        SMALL | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]},
        decoder(LLAMA_MATRICES, 4, 8 + 8),
        ((2 * 16, None),) * 2,
    ),
    "mixtral": Family(  # a token meets the router and 2 of 4 experts
        SMALL
        | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"architectures": ["MixtralForCausalLM"]},
        decoder(2 * (2 * 32 * 32 + 2 * 32 * 16 + 32 * 4 + 2 * 3 * 32 * 48), 4, 8 + 8),
        ((2 * 16, None),) * 2,
    ),
    "qwen3_moe": Family(
        SMALL
        | {"model_type": "qwen3_moe", "head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 24, "decoder_sparse_step": 1, "architectures": ["Qwen3MoeForCausalLM"]},
        decoder(2 * (WIDE_ATTENTION + 32 * 4 + 2 * 3 * 32 * 24), 4, 12 + 12),
        ((2 * 24, None),) * 2,
    ),
    "gpt_oss": Family(
        SMALL
        | {"model_type": "gpt_oss", "head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"sliding_window": 6, "architectures": ["GptOssForCausalLM"]},
        decoder(2 * (WIDE_ATTENTION + 32 * 4 + 2 * 3 * 32 * 48), 4, 12 + 12, (6, None)),
        ((2 * 24, 6), (2 * 24, None)),
    ),
    "deepseek_v3": Family(  # the cache holds the latent and the rotated features of a token
        SMALL
        | {"model_type": "deepseek_v3", "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24}
        | {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 8, "n_group": 2}
        | {"topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        | {"first_k_dense_replace": 1, "n_shared_experts": 1, "architectures": ["DeepseekV3ForCausalLM"]},
        deepseek,
        ((16 + 4, None),) * 2,
    ),
    "mamba": Family(
        IDS
        | {"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 32, "state_size": 8, "expand": 2}
        | {"conv_kernel": 4, "time_step_rank": 2, "architectures": ["MambaForCausalLM"]},
        mamba,
    ),
    "t5": Family(
        {"model_type": "t5", "num_layers": 2, "d_model": 32, "d_kv": 12, "num_heads": 2, "d_ff": 48}
        | {"vocab_size": 101, "architectures": ["T5ForConditionalGeneration"]},
        t5,
    ),
    "bert": Family(
        {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
        | {"intermediate_size": 64, "vocab_size": 101, "max_position_embeddings": 64}
        | {"architectures": ["BertModel"]},
        encoder(BERT_MATRICES, 2, 16 + 16, 32 * 32),
    ),
    "distilbert": Family(  # it has no pooler
        {"model_type": "distilbert", "n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64}
        | {"vocab_size": 101, "max_position_embeddings": 64, "architectures": ["DistilBertModel"]},
        encoder(BERT_MATRICES, 2, 16 + 16, 0),
    ),
    "mobilebert": Family(
        {"model_type": "mobilebert", "num_hidden_layers": 2, "hidden_size": 32, "embedding_size": 16}
        | {"num_attention_heads": 2, "intermediate_size": 32, "true_hidden_size": 16}
        | {"intra_bottleneck_size": 16, "vocab_size": 101, "max_position_embeddings": 64}
        | {"architectures": ["MobileBertModel"]},
        encoder(MOBILE_MATRICES, 2, 8 + 8, 32 * 32),
    ),
    "roberta": Family(
        {"model_type": "roberta", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
        | {"intermediate_size": 64, "vocab_size": 101, "max_position_embeddings": 66}
        | {"architectures": ["RobertaModel"]},
        encoder(BERT_MATRICES, 2, 16 + 16, 32 * 32),
    ),
}
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")
