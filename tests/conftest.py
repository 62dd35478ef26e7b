"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

from tests import monotone

# The same examples on every machine and every run: a failure in CI is a failure on the desk. No deadline, because the
# first example of a kernel pays for its compilation.
settings.register_profile(
    "fastgmm", derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fastgmm")

monotone.install()
