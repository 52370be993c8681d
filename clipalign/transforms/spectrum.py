"""W_t at every t from one decomposition: in the basis of V the map is a scale of each dimension.

W_t = U Σᵗ Vᵀ. U is orthogonal and on both sides, so it leaves similarities and lengths as they are:
what remains of W_t is to take features into the basis of V, once, and to scale them by σᵗ.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from clipalign.models.linear_map import LinearMap
from clipalign.transforms.probe import Floats, ProbeFeatures, Reading

__all__ = ["EPS", "Powers"]

EPS = 1e-6
"""Singular values below it are raised to it, so that t < 0 stays finite."""


class Powers:
    """The readings of a probe under W_t.

    Args:
        features: of the model that W belongs to.
        linear: W, [d, d].
        eps: see `EPS`.

    Attributes:
        sigma: [d] singular values, at least eps.
    """

    def __init__(self, features: ProbeFeatures, linear: LinearMap, eps: float = EPS) -> None:
        _, sigma, vt = linear.svd
        self.sigma: Floats = sigma.clamp(min=eps).cpu().numpy()
        self._rotated = features.mapped(vt.cpu().numpy())

    def at(self, t: float) -> Reading:
        """The reading of W_t, with features normalised after it as they are after a fold."""
        return self._rotated.scaled(self.sigma**t).read()

    def gap(self, t: float) -> float:
        """The group gap of W_t, features normalised after it."""
        return self.at(t).gap

    @cached_property
    def coefficients(self) -> Floats:
        """[d] c_k of Δ(t) = Σ_k σ_k^{2t} c_k, the group gap without normalisation after W_t.

        c_k = mean over the second value's images of (V_k·I)(V_k·D), less that over the first's,
        with D the difference of the two captions of the image's activity. With one pair of captions
        for all images this is (V_k·(Ī_1 − Ī_0))(V_k·(T_1 − T_0)).
        """
        texts = self._rotated.value_texts
        direction = (texts[:, 1] - texts[:, 0])[self._rotated.activity]
        return np.asarray(self._rotated.contrast @ (self._rotated.images * direction))

    def plain_gap(self, t: float) -> float:
        """Δ(t), the group gap without normalisation after W_t: a sum of exponentials in t."""
        return float(self.sigma ** (2 * t) @ self.coefficients)
