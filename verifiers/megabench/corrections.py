"""Where `sound` differs from `compat`, and so from upstream: this list and nothing else."""

from __future__ import annotations

from typing import NamedTuple


class Correction(NamedTuple):
    """One difference between the modes."""

    names: tuple[str, ...]
    """Parsers or metrics concerned."""
    compat: str
    """What upstream does."""
    sound: str
    """What `sound` does instead."""


_BY_TEXT = (
    "exact_str_match",
    "simple_str_match",
    "exact_str_match_case_insensitive",
    "code_result_exact_str_match",
    "multi_ref_phrase",
    "dict_precision",
    "dict_exact_str_match_agg_recall",
)
_BY_SET = (
    "set_equality",
    "set_equality_case_insensitive",
    "str_set_equality_comma",
    "jaccard_index",
    "jaccard_index_case_insensitive",
    "set_precision",
    "chess_move_list_jaccard_index",
    "dict_jaccard_agg_jaccard",
    "dict_set_equality_agg_jaccard",
)
_BY_LIST = (
    "sequence_equality",
    "sequence_equality_case_insensitive",
    "sequence_accuracy_case_insensitive",
    "longest_common_list_prefix_ratio",
    "angle_seq_float_rmse",
    "multi_ref_phrase",
)
_BY_DICT = (
    "dict_equality",
    "dict_precision",
    "dict_exact_str_match_agg_recall",
    "dict_jaccard_agg_jaccard",
    "dict_set_equality_agg_jaccard",
)
_BY_NUMBER = ("general_single_numerical_match", "boxed_single_numerical_match")

CORRECTIONS: tuple[Correction, ...] = (
    Correction(
        ("answer_string", "ascii_answer_string", "verbatim_answer_string"),
        "`**Answer:** B` is the empty answer",
        "is B",
    ),
    Correction(
        ("json", *_BY_DICT),
        "after the first `Answer:` at the start of a line only the rest of that line is read",
        "all after the last such marker is read, so objects over several lines and fences count",
    ),
    Correction(_BY_TEXT, "null is the text None and matches the references None and N", "is wrong"),
    Correction(
        _BY_TEXT,
        "of a reference of one letter the reply's first letter decides, so `Apple` is A",
        "a letter before another letter or digit does not count",
    ),
    Correction(
        ("normalized_similarity_damerau_levenshtein",),
        "two lists are compared as sequences",
        "what is no text is wrong",
    ),
    Correction(
        _BY_SET,
        "a text of nested lists is the empty set, so any two are equal",
        "is the set of its inner lists",
    ),
    Correction((*_BY_SET, *_BY_LIST), "the text None equals no empty list", "is an empty list"),
    Correction(
        ("str_set_equality_comma", "chess_move_list_jaccard_index", *_BY_LIST),
        "a JSON list in the reply is empty",
        "is read like its text",
    ),
    Correction(
        ("set_precision",),
        "an empty or unreadable prediction scores 1",
        "scores 1 only for an empty reference",
    ),
    Correction(
        ("chess_move_list_jaccard_index",),
        "the sign for check and the remarks `?`, `!!`, `!?` make another move",
        "do not count",
    ),
    Correction(
        ("sequence_accuracy_case_insensitive",),
        "a number where the reference has text makes the whole reply wrong",
        "is compared as text, in its own place",
    ),
    Correction(
        ("positive_int_match", "normalized_rmse"), "a JSON number in the reply is wrong", "is read"
    ),
    Correction(_BY_NUMBER, "two tuples are never equal", "are compared place by place"),
    Correction(_BY_NUMBER, r"`50\%` is 50100", "is 0.5"),
    Correction(_BY_NUMBER, "with a full stop behind, `25.` is 2 and `125.` is 2", "is the number"),
    Correction(
        ("nbbox_iou_tuple", "nbbox_iou_single", "dict_nbbox_iou_tuple_agg_jaccard"),
        "a JSON list of four numbers in the reply is no box",
        "is one",
    ),
    Correction(
        (
            "nbbox_iou_tuple",
            "nbbox_iou_single",
            "nbbox_iou_sequence",
            "xml_nbbox_iou_single",
            "dict_nbbox_iou_tuple_agg_jaccard",
        ),
        "a box with both pairs of corners in the wrong order has a positive area",
        "overlaps nothing",
    ),
    Correction(
        ("latex_expr_equality", "text_with_latex_expr_equality"),
        "a readable start of a formula stands for it",
        "the whole formula has to be read",
    ),
    Correction(("bleu",), "reply and reference change places", "keep theirs"),
    Correction(("nli_entailment",), "every pair of texts scores 0", "is unscored"),
    Correction(
        ("geo_proximity_location_dict",),
        "a reference that is not found scores 0",
        "is unscored",
    ),
    Correction(
        ("constrained_generation",),
        "a phrase is found inside words, several words of `contain_only` are joined to one",
        "only whole words count, phrases stay as they are",
    ),
    Correction(
        ("constrained_generation",),
        "`position_only` fails with two of its phrases in the right sentence; with `times` the "
        "position does not count",
        "passes; counts",
    ),
    Correction(
        ("constrained_generation",),
        "double spaces, lines of spaces and words without vowels can end the run, scored 0",
        "are passed over",
    ),
    Correction(
        ("symbolic_planning_test",),
        "negative conditions and goals hold in any state",
        "are checked",
    ),
    Correction(
        ("symbolic_planning_test",),
        "indented and numbered steps are left out, names differ by case",
        "are steps, do not",
    ),
    Correction(
        ("symbolic_planning_test",),
        "a problem without one start state and one goal accepts any plan that can be carried out",
        "is unscored",
    ),
    Correction(
        ("program_judge",),
        "without the customary last lines, functions see neither imports nor each other",
        "code runs as in a file of its own",
    ),
    Correction(
        ("gpt_4o_as_judge",),
        "a mark above ten counts as it is, decimals are cut off, no mark is 0",
        "is ten, count, is unscored",
    ),
    Correction(("ascii_art_gpt4o_judge",), "`yes` within a word agrees", "does not"),
)
"""The corrections, parsers first."""


def corrections_of(name: str) -> list[Correction]:
    """What `sound` does differently in a parser or metric."""
    return [correction for correction in CORRECTIONS if name in correction.names]
