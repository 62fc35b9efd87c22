"""The four distributions that intervals and tests need, from scipy.special.

What belongs here: the calls. What does not: what they are used for (``intervals``, ``significance``). SciPy is
imported at the first call: the code location imports every analysis, and would take a quarter longer to load.
``scipy.stats``, which has the tests and intervals themselves, takes three times as long to import (a second on an
idle machine), and would replace a dozen lines of arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def normal_quantile(probability: float) -> float:
    """The standard normal distribution's quantile."""
    from scipy import special

    return float(special.ndtri(probability))


def t_quantile(dof: Floats, probability: float) -> Floats:
    """Student's t distribution's quantile, for each of the degrees of freedom."""
    from scipy import special

    quantiles: Floats = special.stdtrit(dof, probability)
    return quantiles


def fair_tail(heads: int, throws: int) -> float:
    """The chance of at most so many heads in so many throws of a fair coin."""
    from scipy import special

    return float(special.bdtr(heads, throws, 0.5))


def chi_square_tail(dof: int, values: Floats) -> Floats:
    """The chance that a chi-square variable exceeds each of the values."""
    from scipy import special

    tails: Floats = special.chdtrc(dof, values)
    return tails
