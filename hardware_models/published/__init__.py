"""Published latencies: what device files are fitted to and judged by."""
