"""MEGA-Bench: replies parsed and scored as the official code does it, safely and faster."""

from verifiers.megabench.aggregate import aggregate
from verifiers.megabench.parse import PARSERS, parse_reply
from verifiers.megabench.registry import (
    METRICS,
    Judge,
    JudgedReply,
    JudgeMessage,
    Mode,
    Scored,
    Unscored,
    find_metric,
)
from verifiers.megabench.score import QueryScore, score_response

__all__ = [
    "METRICS",
    "PARSERS",
    "Judge",
    "JudgeMessage",
    "JudgedReply",
    "Mode",
    "QueryScore",
    "Scored",
    "Unscored",
    "aggregate",
    "find_metric",
    "parse_reply",
    "score_response",
]
