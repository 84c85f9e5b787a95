"""Records every op of one step with its layer, shapes, dtypes and what its tensors are.

Under `torch.inference_mode` a dispatch mode sees composite ops whole (`aten.linear`,
`aten.scaled_dot_product_attention`), so the trace does not depend on how a device implements them. A kernel
that is launched without going through torch's dispatcher cannot be seen: wrapped as `torch.library.triton_op`
or `custom_op` it can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from roofleet_agent.calling import Call, around
from roofleet_agent.tracing.attending import attended
from roofleet_agent.tracing.recorder import Recorder, WholeProducts
from roofleet_agent.tracing.records import TraceResult


def trace(
    model: nn.Module,
    call: Callable[[], Any],
    *,
    cache: Callable[[], Iterable[torch.Tensor]] = lambda: (),
    experts_per_token: int | None = None,
    tokens: int | None = None,
    cached_tokens: int | None = None,
) -> TraceResult:
    """Runs `call`, which calls `model` once, and returns what it executed.

    `cache` gives the tensors of the key-value cache; it is asked before and after the call.
    `experts_per_token` becomes an attribute of products with picked experts, whose shapes do not tell it.
    `tokens` of each sequence go through the model in this call and `cached_tokens` are in the cache before,
    where that is known. The model is left as it was: what follows the layers is taken off again, also if the
    call fails.
    """
    recorder = Recorder(experts_per_token)
    recorder.mark(_state_of(model), "weight")
    recorder.mark(cache(), "kv")
    # What is compiled, flex attention and its masks included, runs as it was written: a mode that looks on
    # keeps it from being compiled, which some functions insist on.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        with follow_layers(model, recorder.path_stack), around([(model, _leaving(recorder))]):
            with recorder, _wrapped_weights_whole(model, recorder):
                call()
    recorder.mark(cache(), "kv")
    result = recorder.result()
    return TraceResult(attended(result.ops, model, tokens, cached_tokens), result.edges)


def _leaving(recorder: Recorder) -> Callable[[Call], Call]:
    """What the model gives back flows to the model itself."""

    def leaving(call: Call) -> Call:
        def seen(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            recorder.leaves_the_model(output)
            return output

        return seen

    return leaving


def _state_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """What a checkpoint of the model would hold: parameters and persistent buffers."""
    yield from model.parameters()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


@contextmanager
def _wrapped_weights_whole(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    # This mode sees every call of torch from Python, which takes time: only where there is a reason.
    if any(is_traceable_wrapper_subclass(tensor) for tensor in _state_of(model)):
        with WholeProducts(recorder):
            yield
    else:
        yield


@contextmanager
def follow_layers(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keeps the path of the layer that is running on top of `stack`."""

    def following(path: str) -> Callable[[Call], Call]:
        def followed(call: Call) -> Call:
            def inside(*args: Any, **kwargs: Any) -> Any:
                stack.append(path)
                try:
                    return call(*args, **kwargs)
                finally:
                    stack.pop()

            return inside

        return followed

    with around((module, following(path)) for path, module in model.named_modules()):
        yield
