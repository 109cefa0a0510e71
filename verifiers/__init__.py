"""How responses are judged: one verdict type, one verifier per kind of answer, no torch."""

from verifiers.box_text import parse_boxes
from verifiers.iou_rule import AveragedIou, FixedIou, IouRule, ScoreContext, StagedIou
from verifiers.params import ParamError
from verifiers.pool import PoolStats, ScoringPool, score_batch
from verifiers.registry import VERIFIERS, Verifier, find_verifier, verifier_names
from verifiers.scorer import PoolScoring, Scoring, ServerScoring, read_scoring, score_with
from verifiers.scoring import check_spec, score, score_many
from verifiers.verdict import UNSCORED, Status, Verdict

__all__ = [
    "UNSCORED",
    "VERIFIERS",
    "AveragedIou",
    "FixedIou",
    "IouRule",
    "ParamError",
    "PoolScoring",
    "PoolStats",
    "ScoreContext",
    "Scoring",
    "ScoringPool",
    "ServerScoring",
    "StagedIou",
    "Status",
    "Verdict",
    "Verifier",
    "check_spec",
    "find_verifier",
    "parse_boxes",
    "read_scoring",
    "score",
    "score_batch",
    "score_many",
    "score_with",
    "verifier_names",
]
