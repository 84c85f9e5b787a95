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
from torch.utils.hooks import RemovableHandle

from roofleet_agent.tracing.recorder import Recorder, WholeProducts
from roofleet_agent.tracing.records import TraceResult


def trace(
    model: nn.Module,
    call: Callable[[], Any],
    *,
    cache: Callable[[], Iterable[torch.Tensor]] = lambda: (),
    experts_per_token: int | None = None,
) -> TraceResult:
    """Runs `call`, which calls `model` once, and returns what it executed.

    `cache` gives the tensors of the key-value cache; it is asked before and after the call.
    `experts_per_token` becomes an attribute of products with picked experts, whose shapes do not tell it. The
    model is left as it was: the hooks that follow the layers are taken off again, also if the call fails.
    """
    recorder = Recorder(experts_per_token)
    recorder.mark(_state_of(model), "weight")
    recorder.mark(cache(), "kv")
    leaving = model.register_forward_hook(recorder.leaves_the_model)
    try:
        with torch.inference_mode(), follow_layers(model, recorder.path_stack), _flex_uncompiled():
            with recorder, _wrapped_weights_whole(model, recorder):
                call()
    finally:
        leaving.remove()
    recorder.mark(cache(), "kv")
    return recorder.result()


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
def _flex_uncompiled() -> Iterator[None]:
    """Lets flex attention run where a mode looks on: it insists on compiling itself, which a mode prevents.

    The switch is torch's own, meant for stepping through it with a debugger.
    """
    from torch.nn.attention import flex_attention as flex

    before = getattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", None)
    if before is None:
        yield
        return
    flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        yield
    finally:
        flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


@contextmanager
def follow_layers(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keeps the path of the layer that is running on top of `stack`."""
    handles: list[RemovableHandle] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: stack.append(path)

    def leave(*_: Any) -> None:
        stack.pop()

    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
