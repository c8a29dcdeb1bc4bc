"""What the benchmarks of speed share: random models, runs of the engine on made-up rows, times in turns."""
