"""The weight matrices of a model that variants change, whichever class holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer that is one matrix product, with its path; the output head is left out."""
    head = output_head(model)
    for path, module in model.named_modules():
        if (isinstance(module, nn.Linear) or is_conv1d(module)) and module is not head:
            yield path, module


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer that gives the vocabulary's logits, which is often tied to the embedding."""
    ask = getattr(model, "get_output_embeddings", None)
    head = ask() if callable(ask) else None
    return head if isinstance(head, nn.Module) else None


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, which keeps its matrix transposed and is called Conv1D."""
    weight = getattr(module, "weight", None)
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf") and weight is not None


def sizes(module: Any) -> tuple[int, int]:
    """Features in and out."""
    rows, columns = module.weight.shape
    return (rows, columns) if is_conv1d(module) else (columns, rows)


def as_linear(module: Any) -> nn.Linear:
    """The nn.Linear that computes what a Conv1D computes; a Linear is itself."""
    if not is_conv1d(module):
        return module  # type: ignore[no-any-return]
    inside, outside = sizes(module)
    weight = module.weight
    made = nn.Linear(inside, outside, bias=module.bias is not None, device="meta", dtype=weight.dtype)
    made.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
    if module.bias is not None:
        made.bias = nn.Parameter(module.bias.detach(), requires_grad=False)
    return made.eval()


def replace_layer(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a layer in the place of another, wherever that sits; ValueError if that is the model itself."""
    if new is old:
        return
    if old is model:
        raise ValueError("the model is this one layer, which nothing holds")
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is old:
                setattr(module, name, new)


def expert_matrices(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Matrices of all experts of a layer in one parameter of three dimensions, with the layer's path."""
    for path, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 3:
                yield path, parameter


def keep_features(module: Any, index: torch.Tensor, *, outputs: bool) -> None:
    """Cuts a linear layer down to some of its output features, or of its input features, in place."""
    dimension = 0 if outputs != is_conv1d(module) else 1
    weight = module.weight.detach().index_select(dimension, index)
    module.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if outputs and module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach().index_select(0, index), requires_grad=False)
    if is_conv1d(module):
        module.nx, module.nf = module.weight.shape
    else:
        module.out_features, module.in_features = module.weight.shape
