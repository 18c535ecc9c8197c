"""The attention-based cost model: one network over hardware, workload, schedule, statement and evidence tokens."""
