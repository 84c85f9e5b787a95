"""What a loaded model is: its row of `models`, its layers, and what of it a run's row tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Engine, Session
from roofleet_agent.passes.base import Found, of_run
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import layers_of
from roofleet_agent.workload import ModelRequest, Workload, middle_cache_tokens, phases_of


def asked(
    request: ModelRequest, engine: Engine, device: Device, dtype: str, workload: Workload
) -> dict[str, Any]:
    """Columns of `runs` that are known before anything is loaded."""
    on_cpu = torch.device(device.torch_name).type == "cpu"
    return {
        "dtype": dtype,
        "variant": workload.variant.name,
        "weights": request.weights,
        "engine": engine.name,
        "batch_size": workload.batch_size,
        "logits": workload.logits,
        "iterations": workload.iterations or 0,
        "warmup": workload.warmup,
        "threads": torch.get_num_threads() if on_cpu else None,
        "torch_version": torch.__version__,
        "transformers_version": _version("transformers") if request.origin != "module" else None,
        "driver_version": device.info.driver_version,
    }


def model_of(request: ModelRequest, session: Session) -> list[Found]:
    """The model and the tokens of the workload: what a run needs to be stored at all."""
    row = model_row(
        request.name, request.origin, session.module, session.task, session.parameters, session.config_json,
        request.source,
    )  # fmt: skip
    tokens = {"prompt_tokens": session.prompt_tokens, "new_tokens": session.new_tokens}
    return [Found("models", [row]), of_run(model_id=row["model_id"], **tokens)]


def described(request: ModelRequest, session: Session, workload: Workload) -> Iterator[Found]:
    """The model, its layers, and the columns of the run that a loaded model tells."""
    yield from model_of(request, session)
    yield of_run(
        prompt_sha256=session.prompt_sha256,
        attention=session.attention,
        variant_notes=json.dumps([asdict(note) for note in session.notes]) if session.notes else None,
        parameters=session.held_parameters,
        parameter_bytes=stored_bytes(session.module),
        # A module of the user's own may take another batch than was asked for: its inputs decide.
        batch_size=getattr(session, "batch_size", workload.batch_size),
    )
    if "decode" in phases_of(session.task, session.new_tokens):
        middle = middle_cache_tokens(session.prompt_tokens, session.new_tokens)
        yield of_run(decode_cache_tokens=middle)
    yield layer_rows(session.module)


def layer_rows(module: nn.Module) -> Found:
    """The rows of `layers`."""
    return Found("layers", [asdict(layer) for layer in layers_of(module)])


def model_row(
    name: str,
    origin: str,
    module: nn.Module,
    task: str,
    parameters: int,
    config: str | None,
    source: str | None = None,
) -> dict[str, Any]:
    """The row of `models`; the same name and configuration have one id everywhere."""
    architecture = type(module).__name__
    identity = "\n".join((name, config or f"{architecture} {parameters}"))
    return {
        "model_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "name": name,
        "origin": origin,
        "architecture": architecture,
        "task": task,
        "parameters": parameters,
        "config": config,
        "source": source,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
