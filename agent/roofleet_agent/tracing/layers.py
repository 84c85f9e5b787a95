"""The module tree as layers: paths, roles, repeated blocks and the parameters each holds itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from roofleet_agent.storage import packed_parameters, plain_tensors


@dataclass(frozen=True)
class Layer:
    """One node of the module tree; `parameter_bytes` in bytes, both counts without the layers inside."""

    path: str
    parent_path: str | None
    layer_index: int
    depth: int
    module_type: str
    role: str
    block_index: int | None
    is_leaf: bool
    parameters: int
    parameter_bytes: int


# The first pattern that fits the last part of the path, or the class name, names the role.
_ROLES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (role, re.compile(pattern, re.IGNORECASE))
    for role, pattern in (
        ("dropout", r"dropout|^drop$"),
        ("norm", r"norm|^ln_?\w*$|NoNorm"),
        ("rotary", r"rotary|^rope"),
        ("embedding", r"embed|^wte$|^wpe$|^Embedding$"),
        ("head", r"^lm_head$|^score$|^classifier$|^pooler$|^cls$|predictions"),
        ("router", r"router|^gate$|TopKRouter"),
        ("activation", r"^act(_fn|ivation)?$|intermediate_act|activation$|GELU|SiLU|ReLU"),
    )
)
# Of these the first that fits any part of the path: an attention's own output projection is attention.
_INSIDE = (
    ("attention", re.compile(r"attn|attention", re.IGNORECASE)),
    (
        "mlp",
        re.compile(
            r"mlp|ffn|feed_forward|experts?|^moe|dense_?relu|LayerFF|intermediate|^output$|^fc\d?$",
            re.IGNORECASE,
        ),
    ),
    ("head", re.compile(r"^lm_head$|^score$|^classifier$|^pooler$|^cls$", re.IGNORECASE)),
)


def layers_of(model: nn.Module) -> list[Layer]:
    """Every node of the tree, the model itself (path "") first, in the order of `named_modules`.

    A module that sits at two places appears at the first, and a tied parameter counts there once.
    """
    seen: set[int] = set()
    layers = []
    for index, (path, module) in enumerate(model.named_modules()):
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        packed, packed_bytes = packed_parameters(module)
        layers.append(
            Layer(
                path=path,
                parent_path=None if path == "" else path.rpartition(".")[0],
                layer_index=index,
                depth=0 if path == "" else path.count(".") + 1,
                module_type=type(module).__name__,
                role=role_of(path, type(module).__name__, is_leaf(module)),
                block_index=block_index_of(path),
                is_leaf=is_leaf(module),
                parameters=packed + sum(p.numel() for p in own if not is_lazy(p)),
                parameter_bytes=packed_bytes
                + sum(t.numel() * t.element_size() for p in own for t in plain_tensors(p)),
            )
        )
    return layers


def is_leaf(module: nn.Module) -> bool:
    """Whether no module lies inside; the modules are not asked for their truth, which some tell by a length
    that they have not."""
    return next(module.children(), None) is None


def block_index_of(path: str) -> int | None:
    """The number of the outermost repeated block a path lies in: 3 for `model.layers.3.mlp`."""
    for part in path.split("."):
        if part.isdigit():
            return int(part)
    return None


def role_of(path: str, module_type: str, is_leaf: bool) -> str:
    """What a layer is for, from its name and class.

    A projection inside an attention is `attention`, one inside a feed-forward part `mlp`; a numbered node
    is a `block`; what nothing tells of is `other`.
    """
    if path == "":
        return "model"
    parts = path.split(".")
    last = parts[-1]
    if last.isdigit():
        if is_leaf or any(part.isdigit() for part in parts[:-1]):  # a part of a block is none itself
            return _inside((*parts[:-1], module_type))
        return "block"
    for role, pattern in _ROLES:
        if pattern.search(last) or (is_leaf and pattern.search(module_type)):
            return role
    return _inside(parts)


def _inside(parts: Sequence[str]) -> str:
    for role, pattern in _INSIDE:
        if any(pattern.search(part) for part in parts):
            return role
    return "other"
