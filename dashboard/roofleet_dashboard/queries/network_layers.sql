-- All layers of one phase of a run with what the network's colours and sizes need.
SELECT path, parent_path, layer_index, depth, is_leaf, module_type, role, block_index, calls, p50_ns,
       self_ns, share_of_phase, ops, matmul_flops + other_flops AS flops,
       weight_bytes + activation_bytes + kv_bytes AS bytes,
       total_matmul_flops + total_other_flops AS total_flops,
       total_weight_bytes + total_activation_bytes + total_kv_bytes AS total_bytes, peak_memory_bytes
FROM layer_summary
WHERE run_id = ? AND phase = ?
ORDER BY layer_index
