"""The metrics by upstream's names: which module each lives in, and what each is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

Mode = Literal["compat", "sound"]
"""`compat`: upstream's score, also where it is odd. `sound`: less what corrections.py lists."""

NOT_APPLICABLE = -1
"""Score of a field that does not count; aggregation leaves it out."""


class Unscored(Exception):
    """Raised by a metric that cannot judge for a reason of ours: no judge, no table, a limit.

    Never the response's doing: a response that cannot be read scores 0.
    """


class Scored(NamedTuple):
    """A score together with what there is to say about it."""

    score: float
    """In [0, 1], or -1: not applicable."""
    info: Any
    """What the official result file holds under `info`."""


class JudgeMessage(NamedTuple):
    """One user message to a judge."""

    text: str
    images: tuple[str, ...] = ()
    """Paths of images, or data URLs, that come before the text."""


Judge = Callable[[JudgeMessage], str]
"""Sends one message to a judge at temperature 0 and gives its reply; raises Unscored."""


@dataclass(frozen=True, kw_only=True)
class JudgedReply:
    """What a judged metric sees of one query."""

    prediction: object
    """The field's parsed value; None if the reply lacks it."""
    response: str
    """The whole reply."""
    reference: object
    """Reference value of this field."""
    references: Mapping[str, Any]
    """Every field's reference value."""
    query_text: str = ""
    images: Sequence[str] = ()
    eval_context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The task's `gpt4o_eval_configs`."""


CallForm = Literal["reference", "context", "reply_and_context", "judged"]
"""What a metric is called with:
`reference`: metric(prediction, reference, *, mode) -> float
`context`: metric(prediction, eval_context, *, mode) -> float | Scored
`reply_and_context`: metric(whole reply, eval_context, *, mode) -> float | Scored
`judged`: metric(JudgedReply, judge: Judge | None, *, mode) -> Scored"""


class Metric(NamedTuple):
    """Where a metric lives; its function has the metric's name."""

    module: str
    """Module of this package."""
    form: CallForm = "reference"


METRICS: dict[str, Metric] = {
    "exact_str_match": Metric("metrics_string"),
    "simple_str_match": Metric("metrics_string"),
    "exact_str_match_case_insensitive": Metric("metrics_string"),
    "code_result_exact_str_match": Metric("metrics_string"),
    "near_str_match": Metric("metrics_string"),
    "normalized_similarity_damerau_levenshtein": Metric("metrics_string"),
    "multi_ref_phrase": Metric("metrics_string"),
    "str_set_equality_line_break": Metric("metrics_set"),
    "str_set_equality_comma": Metric("metrics_set"),
    "set_equality": Metric("metrics_set"),
    "set_equality_case_insensitive": Metric("metrics_set"),
    "jaccard_index": Metric("metrics_set"),
    "jaccard_index_case_insensitive": Metric("metrics_set"),
    "set_precision": Metric("metrics_set"),
    "chess_move_list_jaccard_index": Metric("metrics_set"),
    "longest_common_list_prefix_ratio": Metric("metrics_sequence"),
    "sequence_equality": Metric("metrics_sequence"),
    "sequence_equality_case_insensitive": Metric("metrics_sequence"),
    "sequence_accuracy_case_insensitive": Metric("metrics_sequence"),
    "angle_seq_float_rmse": Metric("metrics_sequence"),
    "positive_int_match": Metric("metrics_number"),
    "number_rel_diff_ratio": Metric("metrics_number"),
    "normalized_rmse": Metric("metrics_number"),
    "general_single_numerical_match": Metric("metrics_number"),
    "boxed_single_numerical_match": Metric("metrics_number"),
    "dict_equality": Metric("metrics_dict"),
    "dict_precision": Metric("metrics_dict"),
    "dict_exact_str_match_agg_recall": Metric("metrics_dict"),
    "dict_jaccard_agg_jaccard": Metric("metrics_dict"),
    "dict_set_equality_agg_jaccard": Metric("metrics_dict"),
    "dict_nbbox_iou_tuple_agg_jaccard": Metric("metrics_box"),
    "nbbox_iou_tuple": Metric("metrics_box"),
    "nbbox_iou_single": Metric("metrics_box"),
    "nbbox_iou_sequence": Metric("metrics_box"),
    "xml_nbbox_iou_single": Metric("metrics_box"),
    "xml_norm_point_distance": Metric("metrics_box"),
    "xml_norm_point_in_bbox": Metric("metrics_box", "context"),
    "sequence_coords_similarity": Metric("metrics_box"),
    "latex_expr_equality": Metric("metrics_latex"),
    "text_with_latex_expr_equality": Metric("metrics_latex"),
    "gleu_cn": Metric("metrics_text"),
    "bleu": Metric("metrics_text"),
    "nli_entailment": Metric("metrics_text"),
    "geo_proximity_location_dict": Metric("metrics_location"),
    "constrained_generation": Metric("constrained", "reply_and_context"),
    "symbolic_planning_test": Metric("planning", "context"),
    "program_judge": Metric("programs", "context"),
    "gpt_4o_as_judge": Metric("judge", "judged"),
    "ascii_art_gpt4o_judge": Metric("judge", "judged"),
}


@lru_cache(maxsize=128)
def find_metric(name: str) -> Callable[..., float | Scored] | None:
    """The metric of that name, its module imported on first use; None if there is none."""
    metric = METRICS.get(name)
    if metric is None:
        return None
    return getattr(import_module(f"verifiers.megabench.{metric.module}"), name)
