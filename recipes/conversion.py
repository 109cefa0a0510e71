"""One `vl data convert`: its arguments as options and rules, and the rows of the named format."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_specs import Sample
    from data_specs.convert_answers import AnswerRules
    from data_specs.convert_boxes import BoxRules
    from data_specs.convert_formats import ConvertReport
    from data_specs.convert_log import ConvertLog
    from data_specs.convert_options import ConvertOptions

_CHART_TOLERANCE = 0.05  # ChartQA's relaxed accuracy


def run(arguments: argparse.Namespace, options: ConvertOptions, log: ConvertLog) -> ConvertReport:
    """Writes the rows and says what was made; what gave none is in the log."""
    from data_specs.convert_export import export
    from data_specs.convert_formats import write_converted

    strict: bool = arguments.strict
    if arguments.format.startswith("to-"):
        for name in ("images", "rename", "decode"):
            if getattr(arguments, name):
                raise ValueError(f"--{name} means nothing for {arguments.format}; leave it out")
        target = arguments.format.removeprefix("to-")
        return export(arguments.files, target, options, log, strict=strict)
    samples = _samples(arguments, options, log)
    return write_converted(samples, options.out, log, limit=options.limit, strict=strict)


def _samples(
    arguments: argparse.Namespace, options: ConvertOptions, log: ConvertLog
) -> Iterator[Sample]:
    """The rows of the named format."""
    from data_specs.convert_chat import ChatRules, chat_samples
    from data_specs.convert_coco import CocoRules, coco_samples
    from data_specs.convert_columns import ColumnRules, column_samples
    from data_specs.convert_grounding import GroundingRules, grounding_samples
    from data_specs.convert_vqa import VqaRules, vqa_samples

    files, name = arguments.files, arguments.format
    if name == "coco":
        if options.task not in ("", "detection", "counting"):
            raise ValueError(f"--task is {options.task!r}; allowed for coco: detection, counting")
        rules = CocoRules(
            task="counting" if options.task == "counting" else "detection",
            mode=arguments.mode,
            boxes=_box_rules(arguments),
            incomplete=arguments.incomplete,
            num_negatives=arguments.negatives,
        )
        return coco_samples(files, options, rules, log)
    if name == "refcoco":
        grounding = GroundingRules(
            layout=arguments.box_layout,
            given=arguments.coordinates,
            boxes=_box_rules(arguments),
        )
        return grounding_samples(files, options, grounding, log)
    answers = _answer_rules(arguments)
    if name in ("vqa", "chartqa"):
        vqa = VqaRules(
            answers=answers,
            votes_min=arguments.min_votes,
            image_pattern=arguments.image_pattern,
        )
        return vqa_samples(files, options, vqa, log, name)
    if name == "llava":
        chat = ChatRules(answers=answers, boxes=_box_rules(arguments))
        return chat_samples(files, options, chat, log)
    return column_samples(files, name, options, ColumnRules(answers=answers), log)


def read_options(
    arguments: argparse.Namespace, gold: Gold, advance: Callable[[int, int], None]
) -> ConvertOptions:
    """The options that all formats share.

    Args:
        arguments: of the command line.
        gold: judges references.
        advance: called with records done and records in all.
    """
    from data_specs.convert_options import ConvertOptions, Judging, Wording
    from tasks.wording import box_classes, box_phrase, count_class
    from verifiers.answer import extract_answer
    from verifiers.number import read_number

    rename = dict(item.partition("=")[::2] for item in arguments.rename)
    if not all(key and value for key, value in rename.items()):
        raise ValueError(f"--rename is {arguments.rename!r}; allowed: THEIRS=OURS, once each")
    return ConvertOptions(
        out=arguments.out,
        source=arguments.source,
        task=arguments.task,
        wording=Wording(box_classes=box_classes, box_phrase=box_phrase, count_class=count_class),
        judging=Judging(
            is_number=lambda text: read_number(text) is not None,
            final_answer=lambda text: extract_answer(text).text,
            gold_fault=gold.fault,
        ),
        split=arguments.split,
        licence=arguments.licence,
        images=arguments.images,
        link=arguments.link,
        decode=arguments.decode,
        limit=arguments.limit,
        seed=arguments.seed,
        rename=rename,
        append=arguments.append,
        progress=advance,
    )


def _box_rules(arguments: argparse.Namespace) -> BoxRules:
    from data_specs.convert_boxes import BoxRules

    return BoxRules(
        space=arguments.space,
        boxes_max=arguments.max_boxes_per_category,
        box_frac_max=arguments.max_box_frac,
    )


def _answer_rules(arguments: argparse.Namespace) -> AnswerRules:
    from data_specs.convert_answers import AnswerRules
    from verifiers import find_verifier
    from verifiers.registry import unknown_verifier

    if arguments.verifier and find_verifier(arguments.verifier) is None:
        raise ValueError(f"--verifier: {unknown_verifier(arguments.verifier)}")
    tolerance = arguments.tolerance
    if tolerance is None:
        tolerance = _CHART_TOLERANCE if arguments.format == "chartqa" else 0.0
    if not 0.0 <= tolerance <= 1.0:
        raise ValueError(f"--tolerance is {tolerance}; allowed: 0 to 1")
    return AnswerRules(
        verifier=arguments.verifier, params=arguments.params, relative_tolerance=tolerance
    )


class Gold:
    """Judges the reference of every row as a response to it; formulas in a killable process."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __enter__(self) -> Gold:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def fault(self, sample: Sample) -> str:
        """Why the reference does not score 1; empty if it does."""
        from tasks.check_reward import gold_of, may_be_slow
        from verifiers import ScoringPool, check_spec, score

        spec = sample.reward
        problem = check_spec(spec)
        if problem is not None:
            return problem
        item = gold_of(sample)
        if may_be_slow(spec):
            self._pool = self._pool or ScoringPool(1)
            verdict = self._pool.score_batch([item])[0]
        else:
            verdict = score(*item)
        if verdict.score == 1.0:
            return ""
        return verdict.reason or f"it scores {verdict.score}"
