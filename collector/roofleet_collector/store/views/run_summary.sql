-- One row a run: what ran where, how fast, how much memory, and how far from the roofs.
-- run_id: The run.
-- host_id: Host it ran on.
-- hostname: That host's name.
-- device_id: Device it ran on.
-- device_name: That device's name.
-- device_kind: `cpu`, `gpu` or `tpu`.
-- model_name: Model that ran.
-- dtype: Type of weights and activations.
-- variant: How the model was changed; `base` is unchanged.
-- batch_size: Sequences in the batch.
-- prompt_tokens: Tokens of each prompt; 0 for other inputs, such as images.
-- new_tokens: Tokens generated for each sequence.
-- time_to_first_token_ns: Median bare prefill step, in ns; NULL for a model that does not generate.
-- time_per_output_token_ns: Median bare decode step, in ns; NULL for a model that does not generate.
-- tokens_per_s: Tokens generated in all sequences over the time of an iteration, one prefill and its decode steps at their typical times; for a model that does not generate, tokens processed over the median forward; NULL without tokens and for a model watched in the user's own code, of which no iteration is bare throughout.
-- peak_memory_bytes: Most memory in use at once during a step: weights, cache and activations, in bytes.
-- energy_j: Energy the device used in whole bare iterations, in J.
-- energy_per_token_j: The same for one token generated (processed, for a model that does not generate), in J.
-- model_flops_utilization: Time the matrix work would take at the roofs of its ops' own dtypes over the time taken (MFU), in prefill or forward.
-- memory_bandwidth_utilization: Time the traffic would take at the bandwidth roofs over the time taken (MBU), in decode (forward, for a model that does not generate).
-- instrumentation_overhead: Time with layer timing over time without, steps beside one another in pairs, phases weighted by their time in an iteration.
-- layer_time_coverage: Share of the bare steps that the layers' self times explain, phases weighted by their time in an iteration.
-- status: `running`, `done`, `failed`, `cancelled`, `lost`: said to run while its host was not heard of for an hour, or for over a day, or `analyzed`: counted without running, so that every time is NULL.
-- started_at: When the run began.
-- weights: `pretrained`, `random`, or `own`: a module's, of which only who made it knows the origin.
-- attention: Attention implementation.
-- logits: `last` or `all`: which positions prefill computes logits for.
-- parameters: Parameters of the model as it ran, tied ones once: without those pruned away.
-- unknown_ops: Ops without a formula in a step, over all phases.
-- roof_source_kind: Whether utilisations are against `measured` or `datasheet` roofs.
-- error: Why it failed.
-- noise: Why times of the run are too uncertain to rely on, with the figures; NULL when it was quiet.
-- time_per_output_token_p5_ns: 5th percentile of the bare decode step, in ns.
-- time_per_output_token_p95_ns: 95th percentile of the same, in ns.
-- time_per_output_token_p99_ns: 99th percentile of the same, in ns.
-- time_per_cached_token_ns: What a token more in the cache adds to a decode step: slope of a straight line through the medians of each length, each over its iteration's own; NULL with fewer than 4 lengths or where its 95 % interval includes none, in ns.
-- perplexity: Perplexity of the variant on the text given.
-- baseline_perplexity: Perplexity of the baseline on the same text.
-- kl_divergence: Mean Kullback-Leibler divergence of the next-token distribution from the baseline's, in nats.
-- top1_agreement: Share of positions where both find the same token likeliest, 0 to 1.
-- quality_tokens: Positions the quality figures are means over.
-- quality_baseline: What the quality is measured against.
-- quality_unknown: Why the quality figures are NULL.
-- outputs_finite: Whether every number the model gave out was finite.
-- variant_notes: JSON list of the layers the variant could not be applied to, and what was done instead.
-- sweep_id: Sweep this run is a point of, if it is one.
-- peak_memory_source: `live tensors`, or the allocator that reported the peak.
-- process_peak_bytes: Most memory the whole process held, in bytes.
-- allocator_peak_bytes: Most memory the device's allocator gave out at once, in bytes.
-- allocator_reserved_bytes: Most memory it took from the device at once, in bytes.
-- run_name: What the run is called.
-- tags: Words it is found by.
-- note: What was noted about it.
-- overhead_low: Lower end of the 95 % interval of instrumentation_overhead.
-- overhead_high: Upper end of the same.
-- coverage_low: Lower end of the 95 % interval of layer_time_coverage.
-- coverage_high: Upper end of the same.
-- pairs_unknown: Phases whose overhead and coverage are not known, and why; both are NULL where such phases take a tenth of the time or more.
-- iterations: Measured iterations.
-- iterations_ended_by: What ended them: `asked` for so many, `interval` for intervals that were narrow, `budget` of time, or `most`.
-- turns_id: Runs whose steps took turns with one another share it.
-- decode_cached_tokens: Tokens in the cache before the middle decode step, which the costs of decode are of and its median time stands for; NULL where nothing is decoded.
-- fault: Why steps lie above their roofs, with both numbers, by phase; NULL where none does.
-- product_dtypes: JSON object of the dtypes that products are computed in, in prefill or forward, each with its share of their FLOP.
-- utilization_is_least: Whether MFU and MBU are only lower bounds, as ops without a formula take a notable share of the time.
-- pinned: Whether it outlives retention.
-- spans_let_go_at: When retention let its raw spans go: `spans` and `layer_steps` have no rows of it since, and all its figures stay as they were; NULL while the spans are there.
CREATE OR REPLACE VIEW run_summary AS
WITH phases AS (
    SELECT run_id,
           max(bare_p50_ns) FILTER (phase = 'prefill') AS prefill_ns,
           max(bare_p50_ns) FILTER (phase = 'decode') AS decode_ns,
           max(bare_p50_ns) FILTER (phase = 'forward') AS forward_ns,
           max(model_flops_utilization) FILTER (phase IN ('prefill', 'forward')) AS mfu,
           coalesce(max(memory_bandwidth_utilization) FILTER (phase = 'decode'),
                    max(memory_bandwidth_utilization) FILTER (phase IN ('prefill', 'forward'))) AS mbu,
           -- a phase that is not known well enough counts for nothing, and leaves all unknown if it is much
           sum(share) FILTER (pairs_unknown IS NULL) AS known,
           sum(instrumentation_overhead * share) / sum(share) FILTER (pairs_unknown IS NULL) AS overhead,
           sum(layer_time_coverage * share) / sum(share) FILTER (pairs_unknown IS NULL) AS coverage,
           sqrt(sum((share * (overhead_high - overhead_low) / 2) ** 2))
               / sum(share) FILTER (pairs_unknown IS NULL) AS overhead_margin,
           sqrt(sum((share * (coverage_high - coverage_low) / 2) ** 2))
               / sum(share) FILTER (pairs_unknown IS NULL) AS coverage_margin,
           string_agg(concat(phase, ': ', pairs_unknown), '; ' ORDER BY phase DESC)
               FILTER (pairs_unknown IS NOT NULL) AS pairs_unknown,
           as_count(sum(unknown_ops)) AS unknown_ops,
           any_value(roof_source_kind) AS roof_source_kind,
           max(bare_p5_ns) FILTER (phase = 'decode') AS decode_p5,
           max(bare_p95_ns) FILTER (phase = 'decode') AS decode_p95,
           max(bare_p99_ns) FILTER (phase = 'decode') AS decode_p99,
           string_agg(concat(phase, ': ', interval_noise), '; ' ORDER BY phase DESC)
               FILTER (interval_noise IS NOT NULL) AS intervals,
           string_agg(concat(phase, ': ', fault), '; ' ORDER BY phase DESC) FILTER (fault IS NOT NULL) AS fault,
           max(product_dtypes) FILTER (phase IN ('prefill', 'forward')) AS product_dtypes,
           bool_or(utilization_is_least) AS utilization_is_least
    FROM (SELECT s.*, interval_noise(s.bare_low_ns, s.bare_high_ns) AS interval_noise,
                 s.bare_p50_ns * steps_of(s.phase, r.new_tokens)
                      / sum(s.bare_p50_ns * steps_of(s.phase, r.new_tokens)) OVER (PARTITION BY s.run_id) AS share
          FROM phase_summary s JOIN runs r ON r.run_id = s.run_id)
    GROUP BY run_id
),
counted AS (
    SELECT run_id, nullif(as_count(batch_size::HUGEINT * CASE WHEN new_tokens > 0 THEN new_tokens ELSE prompt_tokens END), 0)
               AS tokens
    FROM runs
)
SELECT r.run_id, r.host_id, h.hostname, r.device_id, d.name AS device_name, d.kind AS device_kind,
       m.name AS model_name, r.dtype, r.variant, r.batch_size, r.prompt_tokens, r.new_tokens,
       p.prefill_ns AS time_to_first_token_ns,
       p.decode_ns AS time_per_output_token_ns,
       CASE WHEN r.engine <> 'watch' THEN n.tokens / i.iteration_ns * 1e9 END AS tokens_per_s,
       r.peak_memory_bytes,
       r.energy_j,
       r.energy_j / (n.tokens::DOUBLE * coalesce(r.energy_iterations, i.iterations)) AS energy_per_token_j,
       p.mfu AS model_flops_utilization,
       p.mbu AS memory_bandwidth_utilization,
       CASE WHEN p.known > 0.9 THEN p.overhead END AS instrumentation_overhead,
       CASE WHEN p.known > 0.9 THEN p.coverage END AS layer_time_coverage,
       run_status(r.status, r.started_at, h.last_seen_at) AS status, as_moment(r.started_at) AS started_at,
       r.weights, r.attention, r.logits, coalesce(r.parameters, m.parameters) AS parameters,
       p.unknown_ops,
       p.roof_source_kind, r.error,
       CASE WHEN i.iterations > 0
            THEN nullif(concat_ws('; ', p.intervals, conditions_noise(
                     r.other_load, r.throttled, r.clock_low_hz, r.clock_high_hz)), '') END AS noise,
       p.decode_p5 AS time_per_output_token_p5_ns, p.decode_p95 AS time_per_output_token_p95_ns,
       p.decode_p99 AS time_per_output_token_p99_ns, i.growth_per_cached_token * p.decode_ns AS time_per_cached_token_ns,
       r.perplexity, r.baseline_perplexity, r.kl_divergence, r.top1_agreement, r.quality_tokens,
       r.quality_baseline, r.quality_unknown, r.outputs_finite, r.variant_notes, r.sweep_id,
       r.peak_memory_source, r.process_peak_bytes, r.allocator_peak_bytes, r.allocator_reserved_bytes,
       l.name AS run_name, l.tags, l.note,
       CASE WHEN p.known > 0.9 THEN p.overhead - p.overhead_margin END AS overhead_low,
       CASE WHEN p.known > 0.9 THEN p.overhead + p.overhead_margin END AS overhead_high,
       CASE WHEN p.known > 0.9 THEN p.coverage - p.coverage_margin END AS coverage_low,
       CASE WHEN p.known > 0.9 THEN p.coverage + p.coverage_margin END AS coverage_high,
       p.pairs_unknown, r.iterations, r.iterations_ended_by, r.turns_id,
       r.decode_cache_tokens AS decode_cached_tokens,
       p.fault, p.product_dtypes, p.utilization_is_least, f.run_id IS NOT NULL AS pinned, as_moment(i.spans_let_go_at) AS spans_let_go_at
FROM runs r
JOIN counted n ON n.run_id = r.run_id
LEFT JOIN run_labels l ON l.run_id = r.run_id
LEFT JOIN pinned_runs f ON f.run_id = r.run_id
LEFT JOIN hosts h ON h.host_id = r.host_id
LEFT JOIN devices d ON d.device_id = r.device_id
LEFT JOIN models m ON m.model_id = r.model_id
LEFT JOIN phases p ON p.run_id = r.run_id
LEFT JOIN run_figures i ON i.run_id = r.run_id;
