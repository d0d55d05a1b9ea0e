"""The S3 driver against real servers, with a relay between that counts calls and injects faults."""
