"""Pure functions on tensors and counts: rank, parameters, FLOPs, storage, scores, the papers' conventions."""
