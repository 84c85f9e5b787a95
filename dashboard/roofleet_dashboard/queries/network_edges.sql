-- Tensors that pass from layer to layer in one phase of a run.
SELECT source_path, target_path, tensors, bytes
FROM layer_edges
WHERE run_id = ? AND phase = ?
ORDER BY source_path, target_path
