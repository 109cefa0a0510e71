"""Rules about words: answers that verifiers misread, queries that are too long, other languages."""

from __future__ import annotations

import re

from data_specs import Sample
from tasks.check_reward import gold_of, may_be_slow
from tasks.curate_rule import Drop, Params, Seen, answer_of, image_size
from verifiers import check_spec, score_batch, score_many

_SYMBOLS = "=[]();"
_WORD = re.compile(r"[^\W\d_]+")
_TEXT_CHARS_MAX = 20_000
_FEW_WORDS = 3

# Words that almost every English question has and that are no words of its neighbours.
_ENGLISH_WORDS = """
the is are was were how many much what which who where when does do did of and this these there
that those it its each every with written says read count find give answer name tell you your
shown visible please identify transcribe provide extract recognize for from at on
"""
_ENGLISH = frozenset(_ENGLISH_WORDS.split())


def drop_symbols(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Answers with any of = [ ] ( ) ; are equations, intervals or several answers."""
    del params, seen
    answer = answer_of(sample)
    found = next((symbol for symbol in _SYMBOLS if symbol in answer), None)
    return sample if found is None else Drop(f"the answer {answer[:60]!r} has {found!r}")


def drop_long_answer(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Answers longer than `max_chars`."""
    del seen
    num_chars = len(answer_of(sample))
    if num_chars <= params["max_chars"]:
        return sample
    return Drop(f"the answer has {num_chars} characters; most {params['max_chars']:g}")


def query_tokens(sample: Sample, params: Params) -> int:
    """Estimated tokens of the prompt with its images.

    A token is `chars_per_token` ASCII characters or one other character; an image has one for
    each `pixels_per_token`, and at most `image_tokens_max`, to which it would be shrunk.
    """
    text = "".join(message.content for message in sample.messages)
    num_ascii = sum(character.isascii() for character in text)
    tokens = num_ascii / params["chars_per_token"] + len(text) - num_ascii
    for index in range(len(sample.images)):
        size = image_size(sample, index)
        if size is not None:
            area = size[0] * size[1]
            tokens += min(params["image_tokens_max"], area / params["pixels_per_token"])
    return round(tokens)


def drop_long_query(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Queries of more than `max_tokens`, estimated."""
    del seen
    tokens = query_tokens(sample, params)
    if tokens <= params["max_tokens"]:
        return sample
    return Drop(f"about {tokens} tokens with images; most {params['max_tokens']:g}")


def drop_foreign(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows whose question or answer is not English, as far as letters and small words tell.

    A text is foreign if less than `min_ascii` of its letters are those of English, or if it has
    more than three words and none that nearly every English question has.
    """
    del seen
    question = sample.question[:_TEXT_CHARS_MAX]
    for what, text in (("question", question), ("answer", answer_of(sample)[:_TEXT_CHARS_MAX])):
        letters = "".join(_WORD.findall(text))
        num_ascii = sum(letter.isascii() for letter in letters)
        if num_ascii < params["min_ascii"] * len(letters):
            return Drop(f"the {what} has other letters than English: {text[:40]!r}")
    words = [word.casefold() for word in _WORD.findall(question)]
    if len(words) > _FEW_WORDS and _ENGLISH.isdisjoint(words):
        return Drop(f"the question has no English function word: {question[:60]!r}")
    return sample


def drop_unverifiable(sample: Sample, params: Params, seen: Seen) -> Sample | Drop:
    """Rows whose reference does not score 1 under their own verifier."""
    del params, seen
    spec = sample.reward
    problem = check_spec(spec)
    if problem is not None:
        return Drop(problem)
    gold = [gold_of(sample)]
    (verdict,) = score_batch(gold, workers=1) if may_be_slow(spec) else score_many(gold)
    if verdict.score == 1.0:
        return sample
    got = verdict.status if verdict.score is None else f"{verdict.score:g}"
    return Drop(f"the reference {answer_of(sample)[:40]!r} scores {got}: {verdict.reason}")
