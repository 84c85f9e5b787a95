"""Every stored table, defined once: columns, Arrow types, units, one sentence each, and the key.

The agent builds its batches from these definitions, the collector checks arrivals against them and
creates its DuckDB tables from them, and the schema page is generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from roofleet_proto import ranges
from roofleet_proto.ranges import Range

TEXT = pa.string()
INT = pa.int64()
FLOAT = pa.float64()
FLAG = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")

TENSOR = pa.struct(
    [
        pa.field("shape", pa.list_(INT)),
        pa.field("dtype", TEXT),
        pa.field("role", TEXT),
        pa.field("bytes", INT),
    ]
)
"""One tensor an op reads or writes.

`role` is `weight`, `kv` (a key-value cache) or `activation`. `bytes` is the storage the view covers:
broadcast dimensions count once, packed weights count as stored, a view written over nothing new is 0.
"""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, its sentence, its unit (None for text, names and counts).

    `range` is what values it takes; None for what is usual for the type and unit.
    """

    name: str
    type: pa.DataType
    doc: str
    unit: str | None = None
    required: bool = False
    range: Range | None = None

    @property
    def takes(self) -> Range | None:
        """What values it takes; None for any of its type."""
        return self.range or ranges.usual(self.type, self.unit)


@dataclass(frozen=True)
class Table:
    """One stored table.

    `key` names the columns that identify a row. With `replaces` a row that comes again under the same
    key takes the place of the older one (hosts, runs: things with a state); without it rows are only
    ever added (spans, readings: facts), and the key is not enforced.
    """

    name: str
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    replaces: bool = False
    derived: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a batch of this table; required columns are not nullable."""
        return pa.schema([pa.field(c.name, c.type, nullable=not c.required) for c in self.columns])

    @cached_property
    def ranges(self) -> tuple[tuple[str, Range | None], ...]:
        """Columns and what values they take; None for any."""
        return tuple((column.name, column.takes) for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError if the table has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}")


def _must(
    name: str, type: pa.DataType, doc: str, unit: str | None = None, range: Range | None = None
) -> Column:
    return Column(name, type, doc, unit, required=True, range=range)


_RUN = _must("run_id", TEXT, "The run this row belongs to.")
_PHASE = _must("phase", TEXT, "`prefill`, `decode` or `forward`.")
_PATH = _must("path", TEXT, "The layer's path in the module tree; the empty string is the model itself.")

HOSTS = Table(
    "hosts",
    "A machine with one agent.",
    ("host_id",),
    (
        _must("host_id", TEXT, "Stable identity of the machine."),
        _must("hostname", TEXT, "Its name, as the machine itself reports it."),
        Column("os", TEXT, "Operating system and its release."),
        Column("architecture", TEXT, "Processor architecture, such as x86_64."),
        Column("cpu_name", TEXT, "The processor's marketing name."),
        Column("cpu_cores", INT, "Physical cores of the machine, where the system tells."),
        Column("cpu_threads", INT, "Logical processors this process may use."),
        Column("memory_bytes", INT, "Main memory, or the container's limit where that is lower.", "bytes"),
        Column("python_version", TEXT, "Python the agent runs on."),
        Column("agent_version", TEXT, "Roofleet version of the agent."),
        Column("agent_id", TEXT, "Identity of the agent's spool, under which its batches are counted."),
        Column("last_seen_at", TIME, "Last heartbeat or registration that reached the collector."),
        Column(
            "clock_offset_ns",
            INT,
            "Its clock less the collector's at the last heartbeat, the message's way included; what it says "
            "of time is stored as it says it.",
            "ns",
            range=ranges.SIGNED,
        ),
        Column("attached_since", TIME, "When its agent attached, the last time that it did."),
        Column("waiting_batches", INT, "Batches that its agent held unsent at the last heartbeat."),
    ),
    replaces=True,
)

DEVICES = Table(
    "devices",
    "One thing that executes: a GPU, a TPU core, or the CPU of a host.",
    ("device_id",),
    (
        _must("device_id", TEXT, "Stable identity of the device."),
        _must("host_id", TEXT, "The host it sits in."),
        _must("kind", TEXT, "`cpu`, `gpu` or `tpu`."),
        _must("name", TEXT, "Name its driver or the system reports."),
        _must("backend", TEXT, "How torch addresses it: `cpu`, `cuda`, `mps`, `xpu` and others."),
        _must("device_index", INT, "Its number among the devices of that backend."),
        Column("memory_bytes", INT, "Memory it computes in.", "bytes"),
        Column("driver_version", TEXT, "Version of its driver, where it has one."),
        Column("hardware_name", TEXT, "The catalogue's slug for this hardware, where it is known."),
        Column(
            "unavailable",
            TEXT,
            "JSON object: reading the device does not give, and why.",
            range=ranges.OBJECT,
        ),
    ),
    replaces=True,
)

ROOFS = Table(
    "roofs",
    "One observation of a ceiling of a device: operations per second for one dtype, or bytes per second of "
    "one memory level. All are kept; `roofline_roofs` has the best of those under the same conditions.",
    ("roof_id",),
    (
        _must("roof_id", TEXT, "Identity of the observation."),
        _must("device_id", TEXT, "The device it bounds."),
        _must("kind", TEXT, "`compute` or `memory`."),
        Column("dtype", TEXT, "Operand type of a compute roof: `fp32`, `bf16`, `fp16` and others."),
        Column("accumulate_dtype", TEXT, "Type that sums are kept in, where it decides the figure."),
        Column(
            "memory_level",
            TEXT,
            "Memory of a memory roof: `cache`, or the device's own as `dram`, `device`, `hbm3` and others; "
            "NULL for one seen in a run, whose data tell by their size.",
        ),
        Column("flops_per_s", FLOAT, "Height of a compute roof, dense.", "FLOP/s", range=ranges.POSITIVE),
        Column("bytes_per_s", FLOAT, "Height of a memory roof.", "bytes/s", range=ranges.POSITIVE),
        _must(
            "source_kind", TEXT, "`measured` on this device, `seen` in a run on it, or from a `datasheet`."
        ),
        _must(
            "source", TEXT, "What was measured and how, the run it was seen in, or the datasheet's address."
        ),
        Column("measured_at", TIME, "When it was measured."),
        Column("size_bytes", INT, "Size of the data that was worked on.", "bytes"),
        Column("threads", INT, "Threads the CPU backend computed with."),
        Column("torch_version", TEXT, "torch it was measured with."),
        Column("driver_version", TEXT, "Driver of the device, where it has one."),
        Column(
            "other_load",
            FLOAT,
            "Share that other work took meanwhile of the processors that were needed.",
            range=ranges.SHARE,
        ),
        Column("spread", FLOAT, "How much longer the median round took than the best: 0.05 is 5 %."),
        Column("run_id", TEXT, "The run it was seen in; NULL for one that was measured."),
    ),
    replaces=True,
)

MODELS = Table(
    "models",
    "An architecture with its configuration.",
    ("model_id",),
    (
        _must("model_id", TEXT, "Digest of name and configuration: the same model has one id everywhere."),
        _must("name", TEXT, "Name the user gave."),
        _must("origin", TEXT, "`catalog`, `hub`, `folder` or `module`."),
        _must("architecture", TEXT, "Class of the module that runs."),
        _must("task", TEXT, "`generate` (prefill and decode) or `encode` (one forward)."),
        _must(
            "parameters",
            INT,
            "Parameters as published, tied ones counted once.",
            range=ranges.LARGE_COUNT,
        ),
        Column("config", TEXT, "JSON of the configuration it was built from.", range=ranges.OBJECT),
        Column("source", TEXT, "Where the configuration is published."),
    ),
    replaces=True,
)

RUNS = Table(
    "runs",
    "One model, on one device, with one workload and one variant.",
    ("run_id",),
    (
        _must("run_id", TEXT, "Identity of the run."),
        _must("host_id", TEXT, "Host it ran on."),
        _must("device_id", TEXT, "Device it ran on."),
        _must("model_id", TEXT, "Model that ran."),
        Column("job_id", TEXT, "Job that asked for it, if one did."),
        _must(
            "status",
            TEXT,
            "`running`, `done`, `failed`, `cancelled`, or `analyzed`: counted on `meta`, never run.",
        ),
        Column("error", TEXT, "Why it failed."),
        _must("started_at", TIME, "When it began."),
        Column("finished_at", TIME, "When it ended."),
        _must("dtype", TEXT, "Type of weights and activations: `fp32`, `bf16`, `fp16`."),
        _must("variant", TEXT, "How the model was changed; `base` is unchanged."),
        _must(
            "weights",
            TEXT,
            "`pretrained`, `random`, or `own`: a module's, of which only who made it knows the origin.",
        ),
        Column(
            "attention",
            TEXT,
            "Attention implementation: `sdpa`, `eager` and others; NULL where the model does not say.",
        ),
        _must("engine", TEXT, "What ran the model."),
        _must(
            "batch_size",
            INT,
            "Sequences, or other inputs such as images, in the batch.",
            range=ranges.AT_LEAST_ONE,
        ),
        _must("prompt_tokens", INT, "Tokens of each prompt; 0 for other inputs, such as images."),
        _must("new_tokens", INT, "Tokens generated for each sequence; 0 for a model that does not generate."),
        _must("logits", TEXT, "`last`: prefill computes the last position's logits only; or `all`."),
        _must("iterations", INT, "Measured iterations; 0 until they are over."),
        _must("warmup", INT, "Iterations before them, marked and left out."),
        Column(
            "decode_cache_tokens",
            INT,
            "Cached tokens before the decode step whose ops are stored: the middle of the measured steps.",
        ),
        Column("prompt_sha256", TEXT, "Digest of the prompt's token ids."),
        Column("parameter_bytes", INT, "Storage of the weights, tied ones once.", "bytes"),
        Column("kv_bytes_per_token", INT, "Cache a token of one sequence adds.", "bytes"),
        Column(
            "peak_memory_bytes",
            INT,
            "Most memory in use at once during a step: weights, cache and activations.",
            "bytes",
        ),
        Column("peak_memory_source", TEXT, "`live tensors`, or the allocator that reported the peak."),
        Column(
            "process_peak_bytes", INT, "Most memory the whole process held, where the system tells.", "bytes"
        ),
        Column("energy_j", FLOAT, "Energy the device used in whole bare iterations.", "J"),
        Column("threads", INT, "Threads the CPU backend computed with."),
        Column("torch_version", TEXT, "torch it ran on."),
        Column("transformers_version", TEXT, "transformers it ran on."),
        Column(
            "outputs_finite",
            FLAG,
            "Whether every number the model gave out was finite, neither NaN nor infinite.",
        ),
        Column("sweep_id", TEXT, "Sweep this run is a point of, if it is one."),
        Column(
            "variant_notes",
            TEXT,
            "JSON list of layers that are not as the variant or checkpoint has them: path, reason, done.",
            range=ranges.LIST,
        ),
        Column("allocator_peak_bytes", INT, "Most memory the device's allocator gave out at once.", "bytes"),
        Column("allocator_reserved_bytes", INT, "Most memory it took from the device at once.", "bytes"),
        Column("affinity", TEXT, "Logical processors the process could run on, such as `0-3,8`."),
        Column("governor", TEXT, "Frequency governor of those processors, where the system tells."),
        Column(
            "other_load",
            FLOAT,
            "Share that other work took of the processors the run needed for its threads.",
            range=ranges.SHARE,
        ),
        Column("clock_low_hz", FLOAT, "Lowest clock of the device seen between iterations.", "Hz"),
        Column("clock_high_hz", FLOAT, "Highest clock of the device seen between iterations.", "Hz"),
        Column(
            "throttled",
            FLAG,
            "Whether heat or power held the device back meanwhile; NULL if it does not tell.",
        ),
        Column(
            "timer_outside_ns",
            FLOAT,
            "What timing a layer adds to the layer around it, calibrated; spans hold it, views take it off.",
            "ns",
        ),
        Column(
            "timer_inside_ns",
            FLOAT,
            "What timing a layer adds to its own interval, calibrated; spans hold it, views take it off.",
            "ns",
        ),
        Column(
            "perplexity",
            FLOAT,
            "Perplexity of the variant on the text given.",
            range=ranges.MAYBE_INFINITE,
        ),
        Column(
            "baseline_perplexity",
            FLOAT,
            "Perplexity of the baseline on the same text.",
            range=ranges.MAYBE_INFINITE,
        ),
        Column(
            "kl_divergence",
            FLOAT,
            "Mean Kullback-Leibler divergence of the next-token distribution from the baseline's, in nats.",
            range=ranges.FINITE,
        ),
        Column(
            "top1_agreement",
            FLOAT,
            "Share of positions where both find the same token likeliest.",
            range=ranges.SHARE,
        ),
        Column("quality_tokens", INT, "Positions the quality figures are means over."),
        Column("quality_baseline", TEXT, "What the quality is measured against, such as `base, bf16`."),
        Column("quality_unknown", TEXT, "Why the quality figures are NULL."),
        Column("driver_version", TEXT, "Driver of the device it ran with, where it has one."),
        Column(
            "iterations_ended_by",
            TEXT,
            "What ended the iterations: `asked` for so many, `interval` for intervals that were narrow, "
            "`budget` of time, or `most`, more than which are not worth their rows.",
        ),
        Column("energy_iterations", INT, "Whole bare iterations that the energy was counted over."),
        Column("turns_id", TEXT, "Runs whose steps took turns with one another share it."),
        Column(
            "parameters",
            INT,
            "Parameters as it ran, tied ones once: none pruned away, packed ones as many as they stand for.",
            range=ranges.LARGE_COUNT,
        ),
        Column(
            "disturbed_by",
            TEXT,
            "What else was at work meanwhile: other load on the processors, or processes on the GPU.",
        ),
    ),
    replaces=True,
)

RUN_LABELS = Table(
    "run_labels",
    "What people say of a run. Apart from `runs`, whose rows an agent sends again while a run goes on.",
    ("run_id",),
    (
        _RUN,
        Column("name", TEXT, "What it is called."),
        Column("tags", pa.list_(TEXT), "Words it is found by, sorted, each once."),
        Column("note", TEXT, "What was noted about it."),
    ),
    replaces=True,
)

PINNED_RUNS = Table(
    "pinned_runs",
    "Runs that outlive retention, by the word of an operator.",
    ("run_id",),
    (_RUN, _must("pinned_at", TIME, "When it was pinned.")),
    replaces=True,
    derived=True,
)

LAYERS = Table(
    "layers",
    "A node of the model's module tree.",
    ("run_id", "path"),
    (
        _RUN,
        _PATH,
        Column("parent_path", TEXT, "Path of the layer it sits in; NULL for the model itself."),
        _must("layer_index", INT, "Its place in the order of the module tree."),
        _must("depth", INT, "Steps from the model itself."),
        _must("module_type", TEXT, "Class of the module."),
        _must("role", TEXT, "What it is for: `embedding`, `attention`, `mlp`, `norm`, `head` and others."),
        Column("block_index", INT, "Number of the repeated block it belongs to; NULL outside them."),
        _must("is_leaf", FLAG, "Whether it has no layers inside."),
        _must(
            "parameters",
            INT,
            "Parameters held by this layer itself, without the layers inside.",
            range=ranges.LARGE_COUNT,
        ),
        _must("parameter_bytes", INT, "Their storage.", "bytes"),
    ),
)

LAYER_EDGES = Table(
    "layer_edges",
    "Data that flows from one layer to another.",
    ("run_id", "phase", "source_path", "target_path"),
    (
        _RUN,
        _PHASE,
        _must("source_path", TEXT, "Layer whose op made the tensor; the empty string is the model itself."),
        _must("target_path", TEXT, "Layer whose op reads it; the empty string is the model or its caller."),
        _must("tensors", INT, "Distinct tensors passed."),
        _must("bytes", INT, "Their size.", "bytes"),
    ),
)

OPS = Table(
    "ops",
    "One computation inside a layer, as traced, with shapes and dtypes.",
    ("run_id", "phase", "op_index"),
    (
        _RUN,
        _PHASE,
        _must("op_index", INT, "Its place in the order of execution."),
        _must("path", TEXT, "Layer that executes it."),
        _must("op", TEXT, "Name of the operator, such as `aten.linear`."),
        _must("inputs", pa.list_(TENSOR), "Tensors it reads."),
        _must("outputs", pa.list_(TENSOR), "Tensors it writes."),
        _must("is_view", FLAG, "Whether it only gives another view of its input and moves nothing."),
        Column(
            "attributes",
            TEXT,
            "JSON of its other arguments that decide the cost.",
            range=ranges.OBJECT,
        ),
        Column(
            "stated_cost",
            TEXT,
            "JSON of its cost by a formula of the user's own, registered where it ran; NULL without one.",
            range=ranges.OBJECT,
        ),
    ),
)

OP_COSTS = Table(
    "op_costs",
    "What an op costs, derived from its shapes by a formula; NULL where there is none.",
    ("run_id", "phase", "op_index"),
    (
        _RUN,
        _PHASE,
        _must("op_index", INT, "The op of `ops` this is the cost of."),
        _must("path", TEXT, "Layer that executes it."),
        _must("is_known", FLAG, "Whether there is a formula for this operator."),
        Column(
            "matmul_flops", INT, "2 x multiply-adds of matrix products and attention, counted dense.", "FLOP"
        ),
        Column("causal_flops", INT, "The same with the masked half of causal attention left out.", "FLOP"),
        Column("other_flops", INT, "Elementwise, norm and softmax work.", "FLOP"),
        Column("weight_bytes", INT, "Weights read.", "bytes"),
        Column("activation_bytes", INT, "Activations read and written.", "bytes"),
        Column("kv_read_bytes", INT, "Key-value cache read.", "bytes"),
        Column("kv_write_bytes", INT, "Key-value cache written.", "bytes"),
        _must("formula_version", INT, "Version of the formulas that gave these figures."),
        Column("dtype", TEXT, "Type it computes in, which decides its roof; NULL where no tensor tells."),
        Column(
            "needed_flops",
            INT,
            "Of `matmul_flops` what no implementation can do without: pairs that the mask lets through, and "
            "nothing that could have been kept.",
            "FLOP",
        ),
        Column(
            "needed_kv_bytes",
            INT,
            "Of the key-value cache read and written what no implementation can do without: positions from "
            "before the step that are in sight, and new ones that later steps can see.",
            "bytes",
        ),
    ),
    derived=True,
)

STEPS = Table(
    "steps",
    "One call of the model inside a phase, timed as a whole.",
    ("run_id", "pass", "iteration", "phase", "step_index"),
    (
        _RUN,
        _PHASE,
        _must("pass", TEXT, "`bare` (nothing attached) or `timed` (layer timing on)."),
        _must(
            "iteration",
            INT,
            "Iteration, from 0, warm-up included; bare and timed steps take turns inside it.",
        ),
        _must(
            "step_index", INT, "Number of the step in its phase, from 0; a prefill or forward is repeated."
        ),
        _must("is_warmup", FLAG, "Whether it belongs to the warm-up, which every figure leaves out."),
        _must("start_ns", INT, "Start, since the run began.", "ns"),
        _must("duration_ns", INT, "Wall time until the device had finished.", "ns", ranges.DURATION),
        _must("tokens", INT, "Tokens the step processed in each sequence; 0 if it takes none."),
        _must("cache_tokens", INT, "Tokens of each sequence in the cache before it."),
        Column("layer_group", INT, "Group of layers timed in it, from 0; NULL in a bare step."),
    ),
)

SPANS = Table(
    "spans",
    "One measured interval of one layer in one step timed with its layers, warm-up excluded.",
    ("run_id", "phase", "iteration", "step_index", "path", "start_ns"),
    (
        _RUN,
        _PHASE,
        _must("iteration", INT, "Iteration of the run."),
        _must("step_index", INT, "Step inside the phase."),
        _PATH,
        _must("start_ns", INT, "Start, since the step began.", "ns"),
        _must("duration_ns", INT, "Time inside the layer, the layers inside it included.", "ns"),
        Column(
            "self_ns",
            INT,
            "Time inside the layer less the layers inside it; NULL where those were not timed in this step.",
            "ns",
        ),
        Column("inner_calls", INT, "Calls of timed layers directly inside it."),
    ),
)

LAYER_MEMORY = Table(
    "layer_memory",
    "Memory of a layer during one step of the memory pass.",
    ("run_id", "phase", "path"),
    (
        _RUN,
        _PHASE,
        _PATH,
        _must("enter_bytes", INT, "Live cache and activation bytes when the layer began.", "bytes"),
        _must("exit_bytes", INT, "Live cache and activation bytes when it ended.", "bytes"),
        _must("peak_bytes", INT, "Most live cache and activation bytes while it ran.", "bytes"),
        _must("allocated_bytes", INT, "Bytes of all tensors made while it ran.", "bytes"),
    ),
)

PHASE_MEMORY = Table(
    "phase_memory",
    "Memory of one phase of a run: what it holds at its peak, and when and where the peak was.",
    ("run_id", "phase"),
    (
        _RUN,
        _PHASE,
        _must("weight_bytes", INT, "Parameters and buffers, as stored.", "bytes"),
        _must("kv_bytes", INT, "Key-value cache alive at the peak.", "bytes"),
        _must("activation_bytes", INT, "Other tensors alive at the peak.", "bytes"),
        _must("peak_bytes", INT, "Most weights, cache and activations alive at once.", "bytes"),
        Column("peak_step_index", INT, "Step of the phase in which that was."),
        Column("peak_path", TEXT, "Layer that ran then."),
        Column("peak_op", TEXT, "Op whose output made the peak."),
        Column(
            "workspace_bytes",
            INT,
            "What kernels took beside tensors: the allocator's peak less peak_bytes; NULL where none tells.",
            "bytes",
        ),
        Column(
            "allocator_peak_bytes", INT, "Most the allocator gave out at once, weights included.", "bytes"
        ),
        Column("allocator_reserved_bytes", INT, "Most it took from the device at once.", "bytes"),
    ),
)

OP_TIMES = Table(
    "op_times",
    "Time of the ops of one layer in one step, from a pass of its own that times every op.",
    ("run_id", "phase", "path", "op"),
    (
        _RUN,
        _PHASE,
        _PATH,
        _must("op", TEXT, "Name of the operator."),
        _must("calls", INT, "Calls in the step that change or compute something."),
        _must("duration_ns", INT, "Host time inside them.", "ns"),
        Column("busy_ns", INT, "Time the device's kernels ran for them; NULL on a CPU.", "ns"),
        Column("kernels", INT, "Kernels they launched; NULL on a CPU."),
    ),
)

SWEEPS = Table(
    "sweeps",
    "Runs of one model over a grid of workloads and variants.",
    ("sweep_id",),
    (
        _must("sweep_id", TEXT, "Identity of the sweep."),
        _must("model_name", TEXT, "Model that is swept."),
        _must(
            "axes",
            TEXT,
            "JSON object: option and its values; one that does not vary has one value.",
            range=ranges.OBJECT,
        ),
        _must("points", INT, "Points of the grid."),
        _must("started_at", TIME, "When it was begun."),
    ),
    replaces=True,
)

READINGS = Table(
    "readings",
    "One instant's gauge of a device; NULL where the device does not give it.",
    ("device_id", "read_at"),
    (
        _must("device_id", TEXT, "The device."),
        _must("read_at", TIME, "The instant."),
        Column("utilization", FLOAT, "Share of the last interval it was busy.", range=ranges.SHARE),
        Column("memory_used_bytes", INT, "Memory in use.", "bytes"),
        Column("power_w", FLOAT, "Power drawn.", "W"),
        Column("clock_hz", FLOAT, "Clock of its compute units.", "Hz"),
        Column("temperature_c", FLOAT, "Temperature.", "°C", range=ranges.CELSIUS),
    ),
)

GAUGES = READINGS.columns[2:]
"""What a reading tells of a device."""


def _summed_up(gauge: Column) -> tuple[Column, ...]:
    """The columns that stand for one gauge of many readings."""
    said = f"{gauge.doc[0].lower()}{gauge.doc[1:].removesuffix('.')}"
    return (
        _must(f"{gauge.name}_count", INT, f"Readings that tell it: {said}."),
        Column(f"mean_{gauge.name}", FLOAT, "Mean of those.", gauge.unit),
        Column(f"min_{gauge.name}", gauge.type, "Least of those.", gauge.unit),
        Column(f"max_{gauge.name}", gauge.type, "Most of those.", gauge.unit),
    )


ROLLED_READINGS = Table(
    "rolled_readings",
    "What is kept of older readings in their place: one row a device and minute, and of still older ones a "
    "device and hour. `reading_history` has them together with those that are still there.",
    ("device_id", "width_s", "began_at"),
    (
        _must("device_id", TEXT, "The device."),
        _must("width_s", INT, "How many seconds it stands for: 60 or 3600."),
        _must("began_at", TIME, "When it begins; a whole minute or hour of UTC."),
        _must("readings", INT, "Readings that it stands for."),
        *(column for gauge in GAUGES for column in _summed_up(gauge)),
    ),
    derived=True,
)

OUTPUTS = Table(
    "outputs",
    "What a run generated, kept only when asked for.",
    ("run_id", "sequence_index"),
    (
        _RUN,
        _must("sequence_index", INT, "Sequence in the batch."),
        _must("token_ids", pa.list_(INT), "Tokens generated."),
        Column("text", TEXT, "Their text, where there is a tokenizer.", range=ranges.LONG_TEXT),
    ),
)

JOBS = Table(
    "jobs",
    "A request for a run, handed to an agent.",
    ("job_id",),
    (
        _must("job_id", TEXT, "Identity of the job."),
        Column("host_id", TEXT, "Host it was handed to."),
        Column("run_id", TEXT, "Run that came of it."),
        _must("request", TEXT, "JSON of the workload asked for.", range=ranges.OBJECT),
        _must(
            "status",
            TEXT,
            "`queued`, `running`, `cancelling`, `done`, `failed`, `cancelled`, or `refused` by the rules of "
            "every agent that it could run on.",
        ),
        Column("error", TEXT, "Why it failed or was refused."),
        _must("submitted_at", TIME, "When it was submitted."),
        Column("finished_at", TIME, "When it ended."),
        Column("submission_id", TEXT, "What the client made it with: the same again makes no other job."),
        Column("selector", TEXT, "Which devices it may run on."),
        Column("model_name", TEXT, "Model asked for."),
        Column("sweep_id", TEXT, "Sweep it is a point of, if it is one."),
        Column("agent_id", TEXT, "Agent it was handed to."),
        Column("device_id", TEXT, "Device it was handed to."),
        Column(
            "token",
            INT,
            "How often it was handed out: reports under an older token are refused.",
            range=ranges.COUNT,
        ),
        Column("started_at", TIME, "When it was handed out last."),
        Column("stage", TEXT, "What is being done, or was done last."),
        Column("fraction", FLOAT, "How far it is.", range=ranges.SHARE),
        Column("log_tail", TEXT, "The last of what its model process printed."),
    ),
    replaces=True,
    derived=True,
)

AUDIT = Table(
    "audit",
    "What callers were refused, and what they changed. The same refusal within a second is one row.",
    ("happened_at", "identity", "what"),
    (
        _must("happened_at", TIME, "When it was, the first time."),
        _must("identity", TEXT, "Name of the token that was shown, or what was shown instead of one."),
        Column("role", TEXT, "Its role: `agent`, `reader`, `operator` or `admin`; NULL where it had none."),
        _must("what", TEXT, "What was called: a method, `SQL`, or a change of the tokens."),
        Column("target", TEXT, "What it was about: the ids of agents, runs or jobs."),
        _must("outcome", TEXT, "`allowed` or `refused`."),
        Column("reason", TEXT, "Why it was refused."),
        Column("peer", TEXT, "Where the call came from, where that is known; of refusals without the port."),
        _must("times", INT, "How often that was."),
    ),
    derived=True,
)

LOSSES = Table(
    "losses",
    "Rows that an agent let go of before they were sent, by its policy or because its disk took none.",
    ("loss_id",),
    (
        _must("loss_id", TEXT, "Identity of the report."),
        _must("agent_id", TEXT, "The agent that reports it."),
        _must("table_name", TEXT, "Table the rows were of."),
        _must("reason", TEXT, "`full`, `age`, or `disk` where the disk took none."),
        _must("rows", INT, "Rows that are gone."),
        _must("batches", INT, "Batches that they were in; 0 where they were in none yet."),
        _must("first_at", TIME, "When the first of them was written."),
        _must("last_at", TIME, "When the last of them was written."),
    ),
)

REJECTED_ROWS = Table(
    "rejected_rows",
    "Rows that an agent sent and that break what a column takes, set aside with the reason. The newest "
    "10,000 are kept, of one batch the first 100.",
    ("agent_id", "epoch", "sequence", "row_index"),
    (
        _must("table_name", TEXT, "Table they were sent for."),
        _must("agent_id", TEXT, "Agent that sent them."),
        _must("epoch", INT, "Epoch of the agent's spool."),
        _must("sequence", INT, "Number of the batch in it."),
        _must("row_index", INT, "Place of the row in the batch, from 0."),
        _must("reason", TEXT, "The column, its value, and what was expected."),
        _must("content", TEXT, "The row as JSON, cut to 4,096 characters."),
        _must("received_at", TIME, "When it came."),
    ),
    derived=True,
)

WORK = pa.list_(
    pa.struct([pa.field("dtype", TEXT), pa.field("matmul_flops", INT), pa.field("other_flops", INT)])
)
"""Work by the dtype it is computed in, which decides its roof."""
SIZES = pa.list_(pa.struct([pa.field("each_bytes", FLOAT), pa.field("bytes", INT)]))
"""Activations by how many of them an op moves at once: roofs tell which of them stay in caches."""
COMPUTE_ROOFS = pa.list_(
    pa.struct(
        [
            pa.field("dtype", TEXT),
            pa.field("flops_per_s", FLOAT),
            pa.field("source_kind", TEXT),
            pa.field("source", TEXT),
        ]
    )
)
"""Roofs of products by their dtype, each with what it is known from."""

_WORK_COLUMNS = (
    Column("matmul_flops", INT, "Matrix-product and attention work, dense.", "FLOP"),
    Column("causal_flops", INT, "The same with the masked half of causal attention left out.", "FLOP"),
    Column("needed_flops", INT, "What no implementation can do without of it.", "FLOP"),
    Column("needed_kv_bytes", INT, "The same of the key-value cache read and written.", "bytes"),
    Column("other_flops", INT, "Elementwise, norm and softmax work.", "FLOP"),
    Column("weight_bytes", INT, "Weights read.", "bytes"),
    Column("activation_bytes", INT, "Activations read and written.", "bytes"),
    Column("kv_read_bytes", INT, "Key-value cache read.", "bytes"),
    Column("kv_write_bytes", INT, "Key-value cache written.", "bytes"),
    Column("held_bytes", INT, "Weights and cache of it, which lie in memory between steps.", "bytes"),
    Column("step_held_bytes", INT, "The same of the whole step.", "bytes"),
    Column("ops", INT, "Ops that move or compute something."),
    Column("unknown_ops", INT, "Ops without a formula."),
    Column("guessed", FLAG, "Whether bytes are an expectation: which experts rows meet, shapes do not say."),
    Column(
        "product_dtypes", TEXT, "JSON object of the dtypes of products, each with its share of their FLOP."
    ),
    Column("work", WORK, "Work by dtype; NULL where no op is known."),
    Column("activations", SIZES, "Activations by size."),
)
_TYPICAL_COLUMNS = (
    Column("typical_log", FLOAT, "Mean over iterations of the logarithm of their median time in ns."),
    Column("typical_variance", FLOAT, "Variance of those."),
    Column("typical_iterations", INT, "How many they are."),
)

RUN_FIGURES = Table(
    "run_figures",
    "What the steps of a run say of it as a whole, worked out when it ended and read by the views.",
    ("run_id",),
    (
        _RUN,
        _must("formula_version", INT, "Version of the formulas that gave the figures of the run."),
        Column("iterations", INT, "Iterations with a bare step."),
        Column("iteration_ns", FLOAT, "An iteration of typical bare steps.", "ns"),
        Column(
            "growth_per_cached_token",
            FLOAT,
            "What a token more in the cache adds to a decode step, as a share of it; NULL where unknown.",
        ),
        Column("settled_at", TIME, "When they were worked out, after the last rows of the run had come."),
        Column(
            "spans_let_go_at",
            TIME,
            "When retention let the run's spans go: its figures stay, and are never worked out anew.",
        ),
    ),
    derived=True,
)

KEPT_LAYER_ITERATIONS = Table(
    "kept_layer_iterations",
    "What is kept of the spans of a run in their place: one row a phase, layer and iteration. "
    "`layer_iterations` has them together with those of spans that are still there.",
    ("run_id", "phase", "path", "iteration"),
    (
        _RUN,
        _PHASE,
        _PATH,
        _must("iteration", INT, "Iteration of the run."),
        _must("steps", INT, "Steps in which the layer's own time was taken."),
        Column("self_ns", FLOAT, "Their median own time, the timer's cost taken off.", "ns"),
        _must("start_ns", INT, "The earliest that it began in a step.", "ns"),
    ),
    derived=True,
)

RETENTION = Table(
    "retention",
    "What retention did so far: rows of a table that were rolled up, deleted, or left out since they came "
    "after the others of their run had gone.",
    ("table_name", "what"),
    (
        _must("table_name", TEXT, "Table that it did it to."),
        _must("what", TEXT, "What it did: `rolled up`, `deleted` or `left out`."),
        _must("rows", INT, "How many, all time."),
        _must("first_at", TIME, "When it did so first."),
        _must("last_at", TIME, "When it did so last."),
    ),
    derived=True,
)

PHASE_FIGURES = Table(
    "phase_figures",
    "What the rows of a run say of each phase, worked out when it ended; `phase_summary` holds it against "
    "the roofs of today.",
    ("run_id", "phase"),
    (
        _RUN,
        _PHASE,
        Column("steps", INT, "Measured bare steps."),
        Column("tokens", INT, "Tokens such a step processes in each sequence."),
        Column("bare_p50_ns", FLOAT, "Median bare step.", "ns"),
        Column("bare_p5_ns", FLOAT, "5th percentile.", "ns"),
        Column("bare_p95_ns", FLOAT, "95th percentile.", "ns"),
        Column("bare_p99_ns", FLOAT, "99th percentile.", "ns"),
        *_TYPICAL_COLUMNS,
        Column("timed_p50_ns", FLOAT, "Median timed step.", "ns"),
        Column("overhead", FLOAT, "Median of timed over bare steps beside one another."),
        Column("pairs", INT, "Timed steps with a bare one beside them."),
        Column("overhead_low", FLOAT, "Lower end of its 95 % interval, by ranks."),
        Column("overhead_high", FLOAT, "Upper end of the same."),
        Column("explained_share", FLOAT, "Share of a timed step that its layers explain, over all groups."),
        Column("explained_margin", FLOAT, "Half of its 95 % interval, as a share of it."),
        Column("busy_ns", INT, "Time the device's kernels run in a step; NULL on a CPU.", "ns"),
        Column("unknown_share", FLOAT, "Share of the time of all ops that those without a formula take."),
        *_WORK_COLUMNS,
    ),
    derived=True,
)

LAYER_FIGURES = Table(
    "layer_figures",
    "What the rows of a run say of each layer in each phase, worked out when it ended; `layer_summary` holds "
    "it against the roofs of today.",
    ("run_id", "phase", "path"),
    (
        _RUN,
        _PHASE,
        _PATH,
        Column("parent_path", TEXT, "Path of the layer it sits in."),
        Column("layer_index", INT, "Its place in the module tree; NULL for a path that only ops name."),
        Column("depth", INT, "Steps from the model itself."),
        Column("is_leaf", FLAG, "Whether it has no layers inside."),
        Column("module_type", TEXT, "Class of the module."),
        Column("role", TEXT, "What it is for."),
        Column("block_index", INT, "Number of the repeated block it belongs to."),
        Column("calls", INT, "How often a step calls it."),
        Column("mean_ns", FLOAT, "Mean time inside it in a step, layers inside included.", "ns"),
        Column("p50_ns", FLOAT, "Median of the same.", "ns"),
        Column("p95_ns", FLOAT, "95th percentile of the same.", "ns"),
        Column(
            "self_ns", FLOAT, "Median time in a step less the layers inside it and the timer's cost.", "ns"
        ),
        Column("timer_ns", FLOAT, "The timer's cost that is taken off.", "ns"),
        Column("share_of_phase", FLOAT, "Share of its own time in that of all layers."),
        Column("busy_ns", INT, "Time the device's kernels run for its own ops; NULL on a CPU.", "ns"),
        *_TYPICAL_COLUMNS,
        Column("peak_memory_bytes", INT, "Most live cache and activation bytes while it ran.", "bytes"),
        *_WORK_COLUMNS,
        Column("total_matmul_flops", INT, "Matrix work with the layers inside.", "FLOP"),
        Column("total_other_flops", INT, "Other work with the layers inside.", "FLOP"),
        Column("total_weight_bytes", INT, "Weights with the layers inside.", "bytes"),
        Column("total_activation_bytes", INT, "Activations with the layers inside.", "bytes"),
        Column("total_kv_bytes", INT, "Cache with the layers inside.", "bytes"),
    ),
    derived=True,
)

TURN_FIGURES = Table(
    "turn_figures",
    "Of two runs whose steps took turns the ratio of their times, step by step, for each phase and layer.",
    ("baseline_run_id", "run_id", "phase", "path"),
    (
        _must("baseline_run_id", TEXT, "The run that is compared with."),
        _RUN,
        _PHASE,
        Column("path", TEXT, "The layer's path; NULL for the whole step."),
        Column("ratio", FLOAT, "Median of the run's time over the baseline's in the step of the same place."),
        Column("low", FLOAT, "Lower end of its 95 % interval, by ranks; NULL with fewer than 6 pairs."),
        Column("high", FLOAT, "Upper end of the same."),
    ),
    derived=True,
)

ROOFS_IN_FORCE = Table(
    "roofs_in_force",
    "The roofs that hold on a device under conditions that a run had: the best of `roofs`, worked out when "
    "one comes. `run_roofs` has them by run.",
    ("device_id", "threads", "torch_version", "driver_version"),
    (
        _must("device_id", TEXT, "The device."),
        Column("threads", INT, "Threads of the run."),
        Column("torch_version", TEXT, "torch of the run."),
        Column("driver_version", TEXT, "Driver of the run."),
        Column("compute", COMPUTE_ROOFS, "The compute roof of each dtype that has one, in FLOP/s."),
        Column("memory_bytes_per_s", FLOAT, "Bandwidth roof of the device's memory.", "bytes/s"),
        Column("memory_source_kind", TEXT, "`measured`, `seen` in a run, or `datasheet`."),
        Column("memory_source", TEXT, "What was measured and how, the run, or the datasheet's address."),
        Column("memory_size_bytes", INT, "Data of less than this may stay in caches.", "bytes"),
        Column("cache_bytes_per_s", FLOAT, "Bandwidth roof of what stays in caches.", "bytes/s"),
        Column("cache_source", TEXT, "What was measured and how, or the run it was seen in."),
    ),
    derived=True,
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        HOSTS, DEVICES, ROOFS, MODELS, RUNS, RUN_LABELS, PINNED_RUNS, LAYERS, LAYER_EDGES, OPS, OP_COSTS,
        STEPS, SPANS, LAYER_MEMORY, PHASE_MEMORY, OP_TIMES, SWEEPS, READINGS, ROLLED_READINGS, OUTPUTS, JOBS,
        AUDIT, LOSSES, REJECTED_ROWS, RUN_FIGURES, PHASE_FIGURES, LAYER_FIGURES, TURN_FIGURES,
        ROOFS_IN_FORCE, KEPT_LAYER_ITERATIONS, RETENTION,
    )
}  # fmt: skip
