"""What token counts, drawn answers and measured steps say of a run: a line each, and problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_specs import Problem

from .preflight_cost import Cost
from .preflight_spread import SourceSpread
from .preflight_tokens import TokenCounts
from .prepare import Run

CUT_FRAC_MAX = 0.05
"""Largest share of a source's training references that may be longer than a rollout can be."""
CUT_HELDOUT_FRAC_MAX = 0.5
"""The same of held-out references: above it most rows of the source cannot score 1."""
MEMORY_FRAC_MAX = 0.9
"""Largest share of the machine's memory that the estimate may take."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the result."""

    name: str
    text: str
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        return f"{'WRONG' if self.problems else 'ok':<7}{self.name:<14}{self.text}"


def judge_tokens(run: Run, counts: TokenCounts) -> list[Finding]:
    """Image tokens, prompts, answers and words."""
    return [
        _image_tokens(counts),
        _prompts(run, counts),
        _answers(run, counts),
        _words(counts),
    ]


def judge_cost(cost: Cost) -> list[Finding]:
    """Memory and time."""
    return [_memory(cost), _time(cost)]


def _image_tokens(counts: TokenCounts) -> Finding:
    written, given = counts.written_image_tokens, counts.given_image_tokens
    text = (
        f"{given} a picture from the vision tower, {_numbers(written)} <image> from the processor "
        f"({counts.num_pictures_tried} pictures tried)"
    )
    problems: list[Problem] = []
    if set(written) != {given}:
        problems.append(
            _problem(
                "model's processor",
                "num_image_tokens",
                _numbers(written),
                f"{given}, the features that the vision tower gives for a picture",
                "Load processor and model from one checkpoint",
            )
        )
    return Finding(name="image tokens", text=text, problems=tuple(problems))


def _prompts(run: Run, counts: TokenCounts) -> Finding:
    recipe = run.recipe
    longest = max(lengths.max for lengths in counts.prompts.values())
    answer = max(
        recipe.rl.sampling.max_new_tokens,
        recipe.evaluation.max_new_tokens,
        max(lengths.max for lengths in counts.answers.values()),
    )
    most = int(run.policy.model.config.text_config.max_position_embeddings)
    text = f"up to {longest} tokens with the picture, {longest + answer} with an answer, of {most}"
    problems = [
        _problem(
            source,
            "prompt and answer",
            f"{lengths.max} + {answer} tokens",
            f"up to {most}, the model's max_position_embeddings",
            "Shorten or leave out the longest rows, or lower max_new_tokens",
        )
        for source, lengths in counts.prompts.items()
        if lengths.max + answer > most
    ]
    return Finding(name="prompts", text=text, problems=tuple(problems))


def _answers(run: Run, counts: TokenCounts) -> Finding:
    """References that a rollout could not write, because its tokens end before."""
    recipe = run.recipe
    limits = (
        ("rl.sampling.max_new_tokens", recipe.rl.sampling.max_new_tokens, CUT_FRAC_MAX),
        ("evaluation.max_new_tokens", recipe.evaluation.max_new_tokens, CUT_HELDOUT_FRAC_MAX),
    )
    problems: list[Problem] = []
    said: list[str] = []
    for (field, limit, most), cut in zip(limits, (counts.cut, counts.cut_heldout), strict=True):
        source, worst = max(cut.items(), key=lambda item: item[1], default=("", 0.0))
        at = f" (at most {worst:.1%}, {source})" if worst else ""
        num_cut = sum(frac > 0.0 for frac in cut.values())
        said.append(f"{field} {limit} cuts references of {num_cut} sources{at}")
        for source, frac in cut.items():
            if frac > most:
                answers = counts.answers[source]
                problems.append(
                    _problem(
                        source,
                        field,
                        f"{limit}: {frac:.1%} of its references are longer (up to {answers.max} "
                        "tokens with the end)",
                        f"at most {most:.0%}",
                        f"Set --{field} {answers.max}, or leave the long rows out",
                    )
                )
    return Finding(name="answers", text="; ".join(said), problems=tuple(problems))


def _words(counts: TokenCounts) -> Finding:
    unknown = counts.unknown_words
    if unknown is None:
        text = "none of the held-out prompts is lost: the tokenizer has no unknown token"
        return Finding(name="words", text=text)
    text = f"{len(unknown)} words of held-out prompts are unknown to the tokenizer"
    problems: tuple[Problem, ...] = ()
    if unknown:
        found = ", ".join(unknown[:5])
        remedy = "Train on rows that have these words, or take another tokenizer"
        where, field = "held-out prompts", "unknown words"
        problems = (_problem(where, field, f"{len(unknown)} ({found})", "none", remedy),)
    return Finding(name="words", text=text, problems=problems)


def judge_spread(run: Run, spread: Mapping[str, SourceSpread], *, is_trained: bool) -> Finding:
    """What the sampled groups would teach; `is_trained`: their answers came from given weights."""
    groups = sum(one.num_groups for one in spread.values())
    live = sum(one.num_groups * one.spread_frac for one in spread.values()) / max(groups, 1)
    score = sum(one.num_groups * one.score for one in spread.values()) / max(groups, 1)
    unscored = sum(one.num_groups * one.unscored_frac for one in spread.values()) / max(groups, 1)
    text = (
        f"{live:.1%} of {groups} groups of {run.recipe.rl.sampling.num_rollouts} rollouts, mean "
        f"score {score:.3f}, {unscored:.1%} unscored"
    )
    if not is_trained:
        text += "; an untrained model has next to none: give weights with --model DIR"
    problems: list[Problem] = []
    if is_trained and live == 0.0:
        problems.append(
            _problem(
                "rl",
                "groups with spread",
                f"none of {groups}",
                "some: rollouts that all score alike teach nothing",
                "Train longer before RL, or choose rows by difficulty (vl data curate)",
            )
        )
    if unscored > run.recipe.rl.max_unscored_frac:
        problems.append(
            _problem(
                "rl",
                "unscored rollouts",
                f"{unscored:.1%}",
                f"at most {run.recipe.rl.max_unscored_frac:.0%} (rl.max_unscored_frac)",
                "Run `vl data check` on the data, and look at the scorers",
            )
        )
    return Finding(name="group spread", text=text, problems=tuple(problems))


def _memory(cost: Cost) -> Finding:
    text = (
        f"{_mib(cost.total_bytes)} of {_mib(cost.machine_bytes)}: "
        f"{_mib(cost.peak_bytes)} peak of this process, measured after a step of each stage (in "
        f"it: weights {_mib(cost.weight_bytes)}, gradients {_mib(cost.gradient_bytes)}, optimizer "
        f"{_mib(cost.optimizer_bytes)}, pictures {_mib(cost.pixel_bytes)}; steps raised it by "
        f"{_mib(cost.activation_bytes)}, their activations) + later: "
        f"{_mib(cost.feature_bytes)} kept picture features, {_mib(cost.weight_bytes)} SFT weights"
    )
    problems: list[Problem] = []
    if cost.total_bytes > MEMORY_FRAC_MAX * cost.machine_bytes:
        problems.append(
            _problem(
                "this machine",
                "memory",
                _mib(cost.total_bytes),
                f"up to {_mib(round(MEMORY_FRAC_MAX * cost.machine_bytes))}",
                "Lower pictures_per_step or rl.sampling.num_rollouts, or train on fewer rows",
            )
        )
    return Finding(name="memory", text=text, problems=tuple(problems))


def _time(cost: Cost) -> Finding:
    parts = ", ".join(
        f"{name} {part.seconds:.3g} s x {part.times} {part.unit} = {_clock(part.total_s)}"
        for name, part in cost.times.items()
    )
    total = sum(part.total_s for part in cost.times.values())
    text = f"about {_clock(total)}: {parts}; trained models answer shorter and faster"
    return Finding(name="time", text=text)


def _problem(where: str, field: str, found: str, allowed: str, remedy: str) -> Problem:
    return Problem(
        file=where, row=None, id="", field=field, value=found, allowed=allowed, remedy=remedy
    )


def _numbers(values: Sequence[int]) -> str:
    return " or ".join(str(value) for value in sorted(set(values)))


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**20:.1f} MiB"


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
