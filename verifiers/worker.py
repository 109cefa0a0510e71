"""What a scoring worker has loaded before its first response: every verifier, and sympy."""

import math_verify
import rapidfuzz.distance
import scipy.optimize

import verifiers

__all__ = ["math_verify", "rapidfuzz", "scipy", "verifiers"]
