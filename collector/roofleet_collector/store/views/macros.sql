-- Arithmetic as functions, so that views and users' own queries apply one rule. Anything unknown makes the
-- answer NULL (DuckDB's greatest and least would pass over a NULL).

-- What a time can be: of a step from 1 ns on, of anything up to 12 days. What is stored and cannot be is left out
-- of every figure, since one such row must not take the others along.
CREATE OR REPLACE MACRO is_duration(ns) AS ns BETWEEN 1 AND 1000000000000000;
CREATE OR REPLACE MACRO is_interval(start_ns, duration_ns, self_ns) AS
    start_ns BETWEEN 0 AND 1000000000000000 AND duration_ns BETWEEN 0 AND 1000000000000000
    AND coalesce(self_ns BETWEEN -1000000000000000 AND 1000000000000000, true);

-- A count of work or bytes that can be one, four of which can be added up; NULL for what cannot.
CREATE OR REPLACE MACRO as_count(x) AS CASE WHEN x BETWEEN 0 AND 2000000000000000000 THEN x::BIGINT END;

-- A moment that can be one; NULL for what cannot, such as the year 200000.
CREATE OR REPLACE MACRO as_moment(instant) AS
    CASE WHEN instant BETWEEN TIMESTAMPTZ '2000-01-01 00:00:00+00' AND TIMESTAMPTZ '2200-01-01 00:00:00+00' THEN instant END;

-- The status of a run: one that goes on as far as its rows tell is `lost` when its host was not heard of for an
-- hour, or after a day. It is told anew each time, so that a run that is heard of again is no longer lost.
CREATE OR REPLACE MACRO run_status(status, started_at, host_seen_at) AS
    CASE WHEN status = 'running' AND (coalesce(as_moment(started_at) < now() - INTERVAL 1 DAY, true)
              OR started_at < now() - INTERVAL 1 HOUR
                 AND coalesce(host_seen_at < now() - INTERVAL 1 HOUR, true))
         THEN 'lost' ELSE status END;

-- Time in ns that work of so many FLOP and bytes takes at the roofs.
CREATE OR REPLACE MACRO time_at_roof_ns(flops, bytes, compute_roof, memory_roof) AS
    CASE WHEN flops / compute_roof > bytes / memory_roof THEN flops / compute_roof * 1e9
         WHEN flops / compute_roof <= bytes / memory_roof THEN bytes / memory_roof * 1e9 END;

-- FLOP/s that the roofs allow at this intensity.
CREATE OR REPLACE MACRO attainable_flops(flops, bytes, compute_roof, memory_roof) AS
    flops / nullif(time_at_roof_ns(flops, bytes, compute_roof, memory_roof), 0) * 1e9;

-- `overhead` where the device's kernels ran for less than half of the time, or below a quarter of the roof
-- with ops that would take under 10 microseconds each there (about what launching or dispatching one takes);
-- else the side of the ridge. busy_ns is NULL where the device does not tell.
CREATE OR REPLACE MACRO bound_by(flops, bytes, compute_roof, memory_roof, time_ns, ops, busy_ns := NULL) AS
    CASE WHEN bytes = 0 OR ops = 0 THEN NULL
         WHEN busy_ns < 0.5 * time_ns AND ops > 0 THEN 'overhead'
         WHEN time_at_roof_ns(flops, bytes, compute_roof, memory_roof) / time_ns < 0.25
              AND time_at_roof_ns(flops, bytes, compute_roof, memory_roof) / ops < 10000 THEN 'overhead'
         WHEN time_ns IS NULL THEN NULL
         WHEN flops / compute_roof > bytes / memory_roof THEN 'compute'
         WHEN flops / compute_roof <= bytes / memory_roof THEN 'memory' END;

-- A span's own time in ns with the timer's calibrated cost taken off: once inside, and outside for each call
-- of a timed layer directly inside. What was not calibrated counts as nothing. Whole ns, whose sums are the
-- same in any order.
CREATE OR REPLACE MACRO own_ns(self_ns, inner_calls, timer_outside_ns, timer_inside_ns) AS
    CASE WHEN self_ns IS NOT NULL
         THEN TRY_CAST(greatest(round(self_ns - coalesce(timer_inside_ns, 0)
                                      - coalesce(inner_calls, 0) * coalesce(timer_outside_ns, 0)), 0) AS BIGINT) END;

-- The t that 97.5 % of Student's distribution lie below: the first terms of its expansion around the normal
-- quantile (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5, and the next term), and a
-- last one fitted. From 2 degrees of freedom on it is right to 0.01 %. roofleet_analysis.comparison has the same.
CREATE OR REPLACE MACRO t_quantile(freedom) AS
    1.959963984540054 + (2.372271230298562 + (2.8224986157396112 + (2.555849679507722
        + (1.5895340533938225 + (0.7328982119816051 + 0.6 / freedom) / freedom) / freedom) / freedom)
        / freedom) / freedom;

-- Half of the 95 % confidence interval of a mean over so many iterations; NULL with fewer than 3.
CREATE OR REPLACE MACRO mean_margin(variance, n) AS
    CASE WHEN n >= 3 THEN t_quantile(n - 1) * sqrt(variance / n) END;

-- Half of the 95 % confidence interval of the difference of two means by Welch's t: squared standard errors
-- and iterations of both sides; NULL with fewer than 3 iterations of either.
CREATE OR REPLACE MACRO difference_margin(square_a, n_a, square_b, n_b) AS
    CASE WHEN least(n_a, n_b) < 3 THEN NULL
         WHEN square_a + square_b = 0 THEN 0.0
         ELSE sqrt(square_a + square_b)
              * t_quantile(1 / ((square_a / (square_a + square_b)) ** 2 / (n_a - 1)
                                + (square_b / (square_a + square_b)) ** 2 / (n_b - 1))) END;

-- The 95 % interval of the median of a list in ascending order, by the ranks it lies between, of which so many
-- are independent of one another; NULL with fewer than 6: five lie on one side of it once in 16.
CREATE OR REPLACE MACRO median_interval(ordered, independent) AS
    CASE WHEN independent >= 6
         THEN {'low': ordered[greatest(1 + floor((0.5 - 0.98 / sqrt(independent)) * (len(ordered) - 1)), 1)::BIGINT],
               'high': ordered[least(1 + ceil((0.5 + 0.98 / sqrt(independent)) * (len(ordered) - 1)),
                                     len(ordered))::BIGINT]} END;

-- Why a ratio of timed to bare steps cannot be told; NULL where it can. The margin is half of its 95 % interval,
-- on logarithms.
CREATE OR REPLACE MACRO unknown_pairs(steps, pairs, margin) AS
    CASE WHEN coalesce(steps, 0) = 0 THEN 'no step was timed bare'
         WHEN pairs IS NULL THEN 'no timed step has a bare one beside it'
         WHEN pairs < 6 THEN printf('%d pairs of bare and timed steps, 6 are needed', pairs)
         WHEN margin > 0.05 THEN printf('pairs of bare and timed steps differ: known to %.0f %% only', margin * 100)
         END;

-- Whether repeats of the same run differ as much as that. Two repeats differ by their ratio itself, rounding
-- aside.
CREATE OR REPLACE MACRO within_spread(ratio, spread) AS
    spread > 1.02 AND greatest(ratio, 1 / ratio) <= spread * (1 + 1e-9);

-- What two runs' times allow to say: `faster`, `slower`, `same` (within 2 % either way) or `unclear`; NULL
-- where one of them has no time. The noise is the reason a side is too noisy to tell, or NULL; the spread is
-- the most that repeats of either run differ, as a ratio, or NULL: a difference within it tells nothing.
CREATE OR REPLACE MACRO verdict(ratio, low, high, baseline_noise, noise, spread := NULL) AS
    CASE WHEN ratio IS NULL THEN NULL
         WHEN baseline_noise IS NOT NULL OR noise IS NOT NULL OR low IS NULL OR high IS NULL THEN 'unclear'
         WHEN within_spread(ratio, spread) THEN 'unclear'
         WHEN low >= 0.98 AND high <= 1.02 THEN 'same'
         WHEN high < 1 AND ratio <= 0.98 THEN 'faster'
         WHEN low > 1 AND ratio >= 1.02 THEN 'slower'
         ELSE 'unclear' END;

-- What two sides say beside one another: of runs that took turns the ratios of their steps, without further
-- doubt; else the means of both over iterations, on logarithms, with the noise and the spread of repeats.
CREATE OR REPLACE MACRO beside(middle_a, variance_a, n_a, noise_a, spread_a, middle_b, variance_b, n_b, noise_b, spread_b,
                               turns_ratio, turns_low, turns_high) AS
    CASE WHEN turns_ratio IS NOT NULL
         THEN {'ratio': turns_ratio, 'low': turns_low, 'high': turns_high, 'baseline_noise': NULL::VARCHAR,
               'noise': NULL::VARCHAR, 'spread': NULL::DOUBLE, 'took_turns': true}
         ELSE {'ratio': exp(middle_b - middle_a),
               'low': exp(middle_b - middle_a - difference_margin(variance_a / n_a, n_a, variance_b / n_b, n_b)),
               'high': exp(middle_b - middle_a + difference_margin(variance_a / n_a, n_a, variance_b / n_b, n_b)),
               'baseline_noise': noise_a, 'noise': noise_b,
               'spread': CASE WHEN spread_a >= spread_b OR spread_b IS NULL THEN spread_a ELSE spread_b END,
               'took_turns': false} END;

-- Why the verdict is `unclear`; NULL where it is not.
CREATE OR REPLACE MACRO why_unclear(ratio, low, high, baseline_noise, noise, spread := NULL) AS
    CASE WHEN verdict(ratio, low, high, baseline_noise, noise, spread := spread) IS DISTINCT FROM 'unclear' THEN NULL
         WHEN baseline_noise IS NOT NULL THEN concat('the baseline is too noisy: ', baseline_noise)
         WHEN noise IS NOT NULL THEN concat('the run is too noisy: ', noise)
         WHEN low IS NULL OR high IS NULL THEN 'fewer than 3 iterations on one side'
         WHEN within_spread(ratio, spread)
         THEN printf('repeats of the same run can differ by %.1f %%', (spread - 1) * 100)
         WHEN low <= 1 AND high >= 1 THEN 'the interval includes no difference'
         ELSE 'the difference is under 2 %' END;

-- Why a phase's time cannot be told: its interval is wider than 5 % of the middle either way; NULL if it is not.
CREATE OR REPLACE MACRO interval_noise(low, high) AS
    CASE WHEN sqrt(high / low) > 1.05
         THEN printf('the interval is %.1f %% wide either way', (sqrt(high / low) - 1) * 100) END;

-- Why a run's conditions were too noisy to tell a time: other work, throttling, clocks that moved; else NULL.
CREATE OR REPLACE MACRO conditions_noise(other_load, throttled, clock_low_hz, clock_high_hz) AS
    nullif(concat_ws('; ',
        CASE WHEN other_load > 0.1
             THEN printf('other work took %.0f %% of the processors', other_load * 100) END,
        CASE WHEN throttled THEN 'heat or power held the device back' END,
        CASE WHEN clock_low_hz < 0.9 * clock_high_hz
             THEN printf('the clock moved between %.2f and %.2f GHz', clock_low_hz / 1e9, clock_high_hz / 1e9)
             END), '');

-- Steps of a phase in one iteration: one prefill or forward, and a decode step for every token after the first.
CREATE OR REPLACE MACRO steps_of(phase, new_tokens) AS
    CASE WHEN phase = 'decode' THEN greatest(new_tokens, 2) - 1 ELSE 1 END;

-- How often an op ran in a step: one of a loop whose rounds are alike is stored once, with their number.
CREATE OR REPLACE MACRO rounds_of(attributes) AS
    CASE WHEN contains(attributes, '"repeat"') AND json_valid(attributes)
         THEN coalesce(greatest(least(TRY_CAST(json_extract_string(attributes, '$.repeat') AS BIGINT),
                                      1000000000000), 1), 1) ELSE 1 END;

-- Whether a roof holds for a run's conditions: threads, torch and driver. What one of them does not tell does
-- not tell them apart.
CREATE OR REPLACE MACRO same_conditions(threads_a, torch_a, driver_a, threads_b, torch_b, driver_b) AS
    coalesce(threads_a = threads_b, true) AND coalesce(torch_a = torch_b, true)
    AND coalesce(driver_a = driver_b, true);

-- Size of data from which on nothing can stay in caches: what the memory's roof was measured on, and where an
-- older agent did not say, what it used.
CREATE OR REPLACE MACRO roof_size(size_bytes) AS coalesce(size_bytes, 268435456);

-- What a map has at a key; NULL where it has nothing.
CREATE OR REPLACE MACRO at_key(held, key) AS list_extract(map_extract(held, key), 1);

-- Time in ns of matrix products at the roofs of their dtypes, of work as {dtype, matmul_flops, other_flops} each;
-- NULL where a product has none.
CREATE OR REPLACE MACRO products_ns(work, roofs) AS
    CASE WHEN NOT list_bool_or(list_transform(work, lambda w: w.matmul_flops > 0 AND at_key(roofs, w.dtype) IS NULL))
         THEN coalesce(list_sum(list_transform(work, lambda w: w.matmul_flops / at_key(roofs, w.dtype) * 1e9)), 0) END;

-- The same of work that is no product; where its dtype has no roof (integers) it is held against the run's.
CREATE OR REPLACE MACRO others_ns(work, roofs, compute_roof) AS
    coalesce(list_sum(list_transform(
        work, lambda w: w.other_flops / coalesce(at_key(roofs, w.dtype), compute_roof) * 1e9)), 0);

-- Of activations as {each_bytes, bytes} those of ops that move so much of them, in bytes.
CREATE OR REPLACE MACRO large_bytes(activations, size_bytes) AS
    coalesce(list_sum(list_transform(activations, lambda a: CASE WHEN a.each_bytes >= size_bytes THEN a.bytes END)), 0);

-- The dtype whose roof a run of that dtype and variant is under as a whole.
CREATE OR REPLACE MACRO multiplied_in(dtype, variant) AS
    CASE WHEN variant LIKE '%int8-dynamic%' THEN 'int8' ELSE dtype END;

-- Why the work or the time of an op, a layer or a step is in doubt by itself; NULL if it is not. Under 50
-- microseconds what timing costs, and what it is corrected by, is no longer small beside the time.
CREATE OR REPLACE MACRO point_doubt(time_ns, unknown_ops, guessed) AS
    nullif(concat_ws('; ',
        CASE WHEN time_ns < 50000 THEN 'under 50 us, too short to be timed well' END,
        CASE WHEN unknown_ops > 0 THEN printf('%d ops have no formula', unknown_ops) END,
        CASE WHEN guessed THEN 'which experts are read is an expectation' END), '');

-- Why the times of a phase, or of its layers, are in doubt; NULL if they are not. The coverage counts for
-- layers only: give 1 for the step itself.
CREATE OR REPLACE MACRO phase_doubt(noise, low, coverage) AS
    nullif(concat_ws('; ', noise,
        CASE WHEN low IS NULL THEN 'fewer than 3 iterations' END,
        CASE WHEN coverage IS NULL THEN 'it is not known what of the step the layers explain'
             WHEN coverage NOT BETWEEN 0.9 AND 1.1
             THEN printf('the layers explain %.0f %% of the step', coverage * 100) END), '');

-- Why a point lies above its roof, with both numbers; NULL where it does not. The work is told with what
-- causal masking lets kernels skip; the doubt is why its work or time cannot raise the roof.
CREATE OR REPLACE MACRO roof_fault(flops, skipped_flops, bytes, compute_roof, memory_roof, time_ns, doubt) AS
    CASE WHEN time_at_roof_ns(flops, bytes, compute_roof, memory_roof) > time_ns
         THEN CASE WHEN flops / compute_roof > bytes / memory_roof
                   THEN concat(printf('%.4g GFLOP/s above a roof of %.4g GFLOP/s: ', flops / time_ns,
                                      compute_roof / 1e9),
                               CASE WHEN (flops - skipped_flops) / compute_roof * 1e9 <= time_ns
                                    THEN 'attention is counted dense, and kernels skip what is masked'
                                    ELSE coalesce('its work or time is in doubt (' || doubt || ')',
                                                  'the roof or the work is at fault') END)
                   ELSE concat(printf('%.4g GB/s above a roof of %.4g GB/s: ', bytes / time_ns,
                                      memory_roof / 1e9),
                               coalesce('its work or time is in doubt (' || doubt || ')',
                                        'the roof is at fault, or a part of it stayed in a cache')) END END;
