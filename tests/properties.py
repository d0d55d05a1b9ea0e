"""How property tests run here: the same examples each time, and no verdict on how busy the machine is."""

from hypothesis import HealthCheck, settings

steady = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
