"""The runner: reads partitions, seals their batches, and serves each route from the ledger."""
