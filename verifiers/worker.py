"""What a scoring worker has loaded before its first response: every verifier, and sympy."""

from math_verify import parse  # pyright: ignore[reportMissingTypeStubs]
from rapidfuzz.distance import Levenshtein
from scipy.optimize import (  # pyright: ignore[reportMissingTypeStubs]
    linear_sum_assignment,  # pyright: ignore[reportUnknownVariableType]
)

from verifiers.scoring import score_many

__all__ = ["Levenshtein", "linear_sum_assignment", "parse", "score_many"]
