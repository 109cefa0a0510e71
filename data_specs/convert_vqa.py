"""Questions with answers about images (VQA, TextVQA, GQA, A-OKVQA, ScienceQA, ChartQA) to rows.

Records hold an image, a question, and an answer or several. VQAv2's own form is read as well: a
questions file and an annotations file, given together, joined by `question_id`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from data_specs.convert_answers import OPTIONS_MAX, AnswerRules, answer_reward, with_options
from data_specs.convert_files import Record, holds_object, id_text, load_json, read_records
from data_specs.convert_formats import Draft, ask, check_row, finish
from data_specs.convert_images import Images, image_values
from data_specs.convert_layouts import ANSWER_KEYS, IMAGE_KEYS, QUESTION_KEYS
from data_specs.convert_log import ConvertLog, Fault
from data_specs.convert_options import ConvertOptions
from data_specs.problem import DataSpecError
from data_specs.sample import Sample

Fields = Mapping[str, object]

_IMAGE_IDS = ("image_id", "imageId", "image_name")
_OPTION_KEYS = ("choices", "options", "multiple_choices")


@dataclass(frozen=True, kw_only=True)
class VqaRules:
    """How questions with answers become rows."""

    answers: AnswerRules = field(default_factory=AnswerRules)
    votes_min: int = 3
    """Of several annotators' answers, those given at least so often are right; VQA's own measure
    gives them full marks at 3. If none is, the most frequent one alone."""
    image_pattern: str = ""
    """File name of an image, with {image_id}, as `COCO_val2014_{image_id:0>12}.jpg`; empty = what
    the records say."""

    def __post_init__(self) -> None:
        if self.votes_min < 1:
            raise ValueError(f"votes are {self.votes_min}; allowed: 1 or more")
        try:
            self.image_pattern.format(image_id="7")
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(
                f"image pattern {self.image_pattern!r} has {error}; allowed: {{image_id}} alone, "
                "for instance 'COCO_val2014_{image_id:0>12}.jpg'"
            ) from error


def vqa_samples(
    paths: Sequence[Path],
    options: ConvertOptions,
    rules: VqaRules,
    log: ConvertLog,
    format_name: str = "vqa",
) -> Iterator[Sample]:
    """The rows of the files; everything that gives none is in the log.

    Args:
        paths: files of records; for VQAv2, questions and annotations.
        options: the shared ones.
        rules: how answers are judged.
        log: what gave no row.
        format_name: `vqa` or `chartqa`, which have the same code and other keys.

    Raises: DataSpecError if a file has other keys.
    """
    images = Images(options)
    default_task = "chart" if format_name == "chartqa" else "vqa"
    paths, answers, pattern = _joined(paths)
    if pattern and not rules.image_pattern:
        rules = replace(rules, image_pattern=pattern)
    for record in read_records(paths, "" if answers else format_name, options, log):
        try:
            if answers:
                record = _with_answers(record, answers)
            sample = finish(
                _draft(record, images, options, rules, default_task), options, default_task
            )
            check_row(sample, options)
        except Fault as fault:
            log.add(fault, record.place)
            continue
        yield sample


def _draft(
    record: Record, images: Images, options: ConvertOptions, rules: VqaRules, default_task: str
) -> Draft:
    """A record's row.

    Raises: Fault if it gives none.
    """
    question = record.text(QUESTION_KEYS)
    if not question:
        raise Fault("no question", "question", None, f"a text under {'|'.join(QUESTION_KEYS)}")
    choices = [str(item) for item in image_values(_parsed(record.first(_OPTION_KEYS)))]
    reward = answer_reward(
        _chosen(record) if choices else _answers(record, rules.votes_min),
        task=options.task or default_task,
        rules=rules.answers,
        judging=options.judging,
        options=choices,
    )
    loaded = images.load_all(_image_fields(record, rules), record)
    image_id = id_text(record.first(_IMAGE_IDS))
    kind = record.text(("question_type", "answer_type", "human_or_machine"))
    return Draft(
        place=record.place,
        id=record.id(),
        messages=ask(with_options(question, choices), len(loaded)),
        images=loaded,
        reward=reward,
        extra={
            **({"image_id": image_id} if image_id else {}),
            **({"question_type": kind} if kind else {}),
        },
        split=record.text(("split", "set_name")),
    )


def _image_fields(record: Record, rules: VqaRules) -> list[object]:
    """What the record says of its images: paths, bytes, or an id that a file is named by."""
    image_id = id_text(record.first(_IMAGE_IDS))
    if rules.image_pattern:
        if not image_id:
            raise Fault("no image", "image_id", None, "an id for the image pattern")
        return [rules.image_pattern.format(image_id=image_id)]
    value = record.first(IMAGE_KEYS)
    if value is not None:
        return image_values(value)
    if not image_id:
        raise Fault("no image", "image", None, f"a path under {'|'.join(IMAGE_KEYS)}")
    return [image_id]


def _chosen(record: Record) -> list[str]:
    """The right one of several options: its letter if the record numbers it, else its text."""
    value = record.first(("correct_choice_idx", *ANSWER_KEYS))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < OPTIONS_MAX:
        return [chr(ord("A") + value)]
    return [item.strip() for item in image_values(value) if isinstance(item, str)]


def _answers(record: Record, votes_min: int) -> list[str]:
    """The right answers, the reference first."""
    best = record.text(("multiple_choice_answer",))
    value = _parsed(record.first(ANSWER_KEYS))
    texts: list[str] = []
    votes = False
    for item in image_values(value):
        if isinstance(item, dict):  # VQAv2: one an annotator
            votes = True
            item = cast("dict[str, object]", item).get("answer")
        if isinstance(item, bool):
            texts.append("yes" if item else "no")
        elif isinstance(item, str | int | float):
            texts.append(str(item).strip())
    counts = Counter(texts)
    if votes or max(counts.values(), default=0) > 1:
        often = [text for text, count in counts.most_common() if count >= votes_min]
        texts = often or [text for text, _ in counts.most_common(1)]
    return list(dict.fromkeys(([best] if best else []) + texts))


def _parsed(value: object) -> object:
    """A list that was written as text, as a list; anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
        try:
            found = cast("object", json.loads(value))
        except (ValueError, RecursionError):
            return value
        if isinstance(found, list) and all(
            isinstance(item, str) for item in cast("list[object]", found)
        ):
            return cast("object", found)
    return value


def _joined(paths: Sequence[Path]) -> tuple[list[Path], dict[str, Fields], str]:
    """VQAv2: the questions files, the annotations by question id, and how images are named.

    Raises: DataSpecError if there are questions without annotations, or the other way round.
    """
    questions: list[Path] = []
    answers: dict[str, Fields] = {}
    pattern = ""
    for path in paths:
        value = load_json(path, ConvertLog()) if holds_object(path) else None
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        entries = fields.get("annotations")
        if isinstance(entries, list):
            for item in cast("list[object]", entries):
                if isinstance(item, dict):
                    entry = cast("dict[str, object]", item)
                    answers[id_text(entry.get("question_id"))] = entry
        else:
            questions.append(path)
        subtype = fields.get("data_subtype")
        if isinstance(subtype, str) and subtype:
            pattern = f"COCO_{subtype}_{{image_id:0>12}}.jpg"
    if answers and not questions:
        raise DataSpecError(
            f"{paths[0]}: holds annotations but no questions; format vqa needs VQAv2's questions "
            "file beside it: name both"
        )
    return (questions, answers, pattern) if answers else (list(paths), {}, "")


def _with_answers(record: Record, answers: Mapping[str, Fields]) -> Record:
    found = answers.get(id_text(record.fields.get("question_id")))
    if found is None:
        allowed = "an id that the annotations file has"
        raise Fault("no answer", "question_id", record.fields.get("question_id"), allowed)
    return replace(record, fields={**found, **record.fields})
