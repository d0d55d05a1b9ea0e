"""What operators see of a registry that runs: health, the debug address, logs, traces."""
