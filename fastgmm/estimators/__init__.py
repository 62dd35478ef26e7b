"""Estimators: scikit-learn's interface over starts, EM and the fitted mixture. Read `gaussian` first."""

from __future__ import annotations

from fastgmm.estimators.gaussian import GaussianMixture

__all__ = ["GaussianMixture"]
