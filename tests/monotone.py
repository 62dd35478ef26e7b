"""Every fit of the suite is watched: its log-likelihood must not fall, unless the fit says so in its events.

`conftest.py` installs this around the EM loop. It keeps its own account of the passes and of what `reg_covar` may cost,
so it does not rely on the loop's judgement.
"""

import functools

import numpy as np

from fastgmm.em import loop
from tests import reference
from tests.doubles import as_reference

LARGE = 1 << 22


class Watch:
    """An `accumulate` that remembers every fall of the log-likelihood beyond what is documented.

    Parameters
    ----------
    accumulate : callable
    reg_covar : float or ndarray (D,)
    rtol : float
        Of the fit; `rtol` is the relative rounding error that docs/reliability.md grants a pass.
    """

    def __init__(self, accumulate, reg_covar, rtol):
        self.accumulate, self.reg_covar, self.rtol = accumulate, reg_covar, rtol
        self.before = None  # parameters and log-likelihood of the last pass
        self.passes = 0
        self.falls = []  # (iteration, fall, what would have been fine)

    def __call__(self, params, *, moments=True):
        stats = self.accumulate(params, moments=moments)
        if self.before is not None:
            old, log_likelihood = self.before
            fall = log_likelihood - stats.log_likelihood
            allowed = self.rtol * (abs(log_likelihood) + stats.total_weight)
            if fall > allowed and np.any(np.asarray(self.reg_covar) > 0.0):
                allowed += np.inf if old is None else self.cost_of_reg_covar(old, params, stats.total_weight)
            if not fall <= allowed:
                self.falls.append((self.passes, fall, allowed))
        # Large parameters are not kept, or the tests of a fit's memory would measure this.
        kept = params if params.covariances.nbytes <= LARGE else None
        self.before = kept, stats.log_likelihood
        self.passes += 1
        return stats

    def cost_of_reg_covar(self, old, new, total_weight):
        """An M-step maximises Q - 1/2 sum n_k tr(R Sigma_k^-1); Q alone may lose what the second term gains."""
        if old.n_components != new.n_components:
            return 0.0
        before, after = (
            (np.linalg.inv(reference.dense(as_reference(p))).diagonal(0, 1, 2) * self.reg_covar).sum(axis=1)
            for p in (old, new)
        )
        return max(0.0, 0.5 * float(total_weight * new.weights @ (before - after)))

    def check(self, result):
        """Assert that every fall is among the events of a `FitResult`, and that it reports the last pass."""
        assert result.log_likelihood == self.before[1] or np.isnan(self.before[1])
        for iteration, fall, allowed in self.falls:
            # A floor or another repair changes the objective from then on; a mere decrease is one iteration's.
            told = any(
                event.iteration == iteration or (event.iteration < iteration and event.kind != "decrease")
                for event in result.events
            )
            assert told, (
                f"the log-likelihood fell by {fall:.3g} in iteration {iteration} (rounding and reg_covar explain "
                f"{allowed:.3g}) and no event says so"
            )


def install():
    """Watch all fits of this process."""
    run = loop._Loop.run

    @functools.wraps(run)
    def watched(self, *args, **kwargs):
        watch = self.accumulate = Watch(self.accumulate, self.reg_covar, self.monotone_rtol)
        state, max_iter = kwargs["state"], args[2]
        if state is not None:  # counts on from where it was; one that was finished evaluates its parameters twice
            watch.passes = state.iteration - (not state.with_moments and state.iteration < max_iter)
        result = run(self, *args, **kwargs)
        watch.check(result)
        return result

    loop._Loop.run = watched
