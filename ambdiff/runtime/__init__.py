"""What a run stands on: checkpoints, faults, hosts, sharding, progress."""
