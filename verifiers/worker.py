"""What a scoring worker has loaded before its first response: every verifier, and sympy."""

from math_verify import parse  # pyright: ignore[reportMissingTypeStubs]
from rapidfuzz.distance import Levenshtein
from scipy.optimize import (  # pyright: ignore[reportMissingTypeStubs]
    linear_sum_assignment,  # pyright: ignore[reportUnknownVariableType]
)

from verifiers.pool import score_guarded

__all__ = ["Levenshtein", "linear_sum_assignment", "parse", "score_guarded"]
