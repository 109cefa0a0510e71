"""Any image-text-to-text model of transformers as a policy; answers share their prompt's memory.

A picture is encoded once, a prompt read once. All answers of a step then pass the decoder as one
row of tokens, each token seeing its prompt and its own answer (`hf_attention`). Models whose
layers cannot do that are read plainly; `shares_prefix` says which and why.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from vl.policy import AnswerScores, Branches, Question
from vl.precision import in_compute_type
from vl.saving import save_weights
from vl.text import pad_right

from .hf_attention import Answers, Prefix, Recording
from .hf_branches import PlainBranches, SharedBranches
from .hf_head import token_scores
from .hf_load import Sharing, end_ids_of, forbidden_ids, prepare_sharing, text_model_of
from .hf_memory import Chunk, Features, Memory, chunks_of, join, next_positions
from .hf_parts import parts_of
from .hf_render import Pixels, Renderer

_CHUNK_TOKENS = 16_384
"""Prompt tokens (padding included) that pass the decoder at once."""


@dataclass(frozen=True)
class HfPolicy:
    """Model and processor that belong together; `load` makes it."""

    model: PreTrainedModel
    render: Renderer
    text_model: PreTrainedModel
    shares_prefix: Sharing
    """Whether prompts are read once for all their answers, and if not, why."""
    end_ids: frozenset[int]
    forbidden: tuple[int, ...]
    """Picture and video marks: never drawn, and log-probs are normalised without them."""
    parts: Mapping[str, tuple[str, ...]]
    fp32_head: bool
    autocast: bool = False
    """Layers multiply in bfloat16; weights and head stay as they are."""

    @classmethod
    def load(
        cls,
        source: str | Path | PreTrainedModel,
        processor: ProcessorMixin | None = None,
        *,
        dtype: torch.dtype | None = None,
        fp32_head: bool = True,
    ) -> HfPolicy:
        """A checkpoint folder or hub name, or a model that is there with its processor.

        Args:
            dtype: of the weights; None = as saved.
            fp32_head: logits in float32 from float32 products, whatever the model's type. Source:
                MiniMax-M1 report, section 3.2.
        """
        if isinstance(source, PreTrainedModel):
            if processor is None:
                raise ValueError(
                    f"HfPolicy.load: found a {type(source).__name__} without processor; give both"
                )
            model = source
        else:
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype or "auto")
            processor = processor or AutoProcessor.from_pretrained(source)
        processor = cast("ProcessorMixin", processor)
        text = text_model_of(model)
        return cls(
            model=model,
            render=Renderer(processor),
            text_model=text,
            shares_prefix=prepare_sharing(text),
            end_ids=end_ids_of(model, processor),
            forbidden=tuple(forbidden_ids(model, processor)),
            parts=parts_of(model),
            fp32_head=fp32_head,
        )

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.text_model.device

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """The forbidden tokens, under the protocol's name."""
        return self.forbidden

    @property
    def _pad_id(self) -> int:
        pad = self.render.tokenizer.pad_token_id
        return min(self.end_ids) if pad is None or pad in self.forbidden else cast("int", pad)

    @property
    def _shares(self) -> bool:
        """Gradient checkpointing recomputes layers, which would record their memory twice."""
        recomputes = self.text_model.training and any(
            getattr(module, "gradient_checkpointing", False) for module in self.text_model.modules()
        )
        return bool(self.shares_prefix) and not recomputes

    # pictures

    def encode(self, images: Sequence[Image.Image]) -> Pixels:
        """Pixels of an entry's pictures."""
        return self.render.encode(images)

    def features(self, entries: Sequence[Pixels]) -> list[Features]:
        """Image tokens of each entry; entries of equal shape pass the tower together."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, entry in enumerate(entries):
            shapes = tuple((name, *value.shape[1:]) for name, value in entry.inputs.items())
            groups.setdefault(shapes, []).append(index)
        found: dict[int, Features] = {}
        for indices in groups.values():
            seen = self._see([entries[index] for index in indices])
            found |= dict(zip(indices, seen, strict=True))
        return [found[index] for index in range(len(entries))]

    @in_compute_type
    def _see(self, entries: Sequence[Pixels]) -> list[Features]:
        names = entries[0].inputs
        batch = {
            name: torch.cat([entry.inputs[name] for entry in entries]).to(self.device)
            for name in names
        }
        output = cast("Any", self.model.base_model).get_image_features(**batch, return_dict=True)
        pooled = list(output.pooler_output)
        deep = [list(layer) for layer in getattr(output, "deepstack_features", None) or ()]
        counts = [len(entry.expansions) for entry in entries]
        if len(pooled) != sum(counts):  # some models give one tensor for all pictures of an entry
            counts = [1] * len(entries)
        if len(pooled) != sum(counts):
            raise ValueError(
                f"{type(self.model).__name__}: {len(entries)} entries of "
                f"{[len(entry.expansions) for entry in entries]} pictures gave {len(pooled)} "
                "features, allowed is one for each picture or entry; this model is not supported"
            )
        taken = inspect.signature(self.model.base_model.forward).parameters
        seen: list[Features] = []
        start = 0
        for entry, count in zip(entries, counts, strict=True):
            part = slice(start, start + count)
            layout = {
                name: value.to(self.device)
                for name, value in entry.inputs.items()
                if name in taken and not name.startswith("pixel_")
            }
            layers = tuple(tuple(layer[part]) for layer in deep)
            seen.append(Features(tuple(pooled[part]), layers, layout, entry.expansions))
            start += count
        return seen

    # prompts

    def read(self, features: Sequence[Features], questions: Sequence[Question]) -> Memory:
        """Memory after each question; nothing is computed yet where the model cannot share."""
        if not self._shares:
            return Memory(tuple(features), tuple(questions), None)
        prompts = [self._prompt(features, question) for question in questions]
        chunks: list[Chunk] = []
        for rows in chunks_of([len(prompt) for prompt in prompts], _CHUNK_TOKENS):
            ids, valid = pad_right([prompts[row] for row in rows], self._pad_id)
            lengths = valid.sum(1).to(self.device)
            recording = Recording()
            entries = [features[questions[row].owner] for row in rows]
            hidden, positions = self.run(ids.to(self.device), entries, tree=recording)
            last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]
            layers = [recording.layers[index] for index in range(len(recording.layers))]
            after = next_positions(positions, lengths)
            chunks.append(Chunk(tuple(rows), Prefix(layers, lengths), after, last))
        return Memory(tuple(features), tuple(questions), tuple(chunks))

    def _prompt(self, features: Sequence[Features], question: Question) -> list[int]:
        return self.render.prompt(features[question.owner].expansions, question.text)

    @in_compute_type
    def run(
        self, ids: Int[Tensor, "row token"], entries: Sequence[Features], **options: Any
    ) -> tuple[Float[Tensor, "row token hidden"], Int[Tensor, "3 row token"] | None]:
        """States of whole rows that start with a prompt, padded on the right; rotary positions.

        The padding comes last, so no earlier token sees it and no mask is needed.
        """
        inner = cast("Any", self.model.base_model)
        names = entries[0].layout
        inputs = {name: torch.cat([entry.layout[name] for entry in entries]) for name in names}
        is_picture = (ids == self.image_id).int()
        inputs["mm_token_type_ids"] = inputs["token_type_ids"] = is_picture
        positions = None
        if hasattr(inner, "get_rope_index"):
            taken = inspect.signature(inner.get_rope_index).parameters
            given = {name: value for name, value in inputs.items() if name in taken}
            positions = inner.get_rope_index(input_ids=ids, **given)[0]
        taken = inspect.signature(inner.forward).parameters
        seen = [token for entry in entries for token in entry.tokens]
        deep = [
            [state for part in layer for state in part]
            for layer in zip(*(entry.deep for entry in entries), strict=True)
        ]
        pictures = SimpleNamespace(pooler_output=seen, deepstack_features=deep)
        output = inner(
            input_ids=ids,
            position_ids=positions,
            mm_encoder_outputs={"image": pictures} if seen else None,
            **{"use_cache": False, **options},
            **{name: value for name, value in inputs.items() if name in taken},
        )
        return output.last_hidden_state, positions

    @property
    def image_id(self) -> int:
        """The token that stands for one image token."""
        config = self.model.config
        found = getattr(config, "image_token_id", None)
        return cast("int", config.image_token_index if found is None else found)

    # answers

    def branch(self, memory: Memory, copies: int) -> Branches:
        """`copies` answers to each question, decoded together."""
        if memory.chunks is None:
            prompts = [self._prompt(memory.features, question) for question in memory.questions]
            entries = [memory.features[question.owner] for question in memory.questions]
            return PlainBranches(self, prompts, entries, copies)
        return SharedBranches(self, join(memory.chunks), copies)

    def score(
        self,
        memory: Memory,
        owners: Sequence[int],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """Log-probability and entropy of every token of each answer after its question's memory."""
        if memory.chunks is None:
            asked = [memory.questions[owner] for owner in owners]
            return self.score_alone(memory.features, asked, answers, temperature=temperature)
        parts: list[tuple[list[int], Tensor]] = []
        for chunk in memory.chunks:
            place = {row: index for index, row in enumerate(chunk.rows)}
            rows = [row for row, owner in enumerate(owners) if owner in place and answers[row]]
            rows.sort(key=lambda row: place[owners[row]])
            if rows:
                prompts = torch.tensor([place[owners[row]] for row in rows], device=self.device)
                parts.append((rows, self._read_answers(chunk, prompts, [answers[r] for r in rows])))
        return self._scores(answers, parts, temperature)

    def _read_answers(
        self, chunk: Chunk, prompts: Int[Tensor, " row"], answers: Sequence[Sequence[int]]
    ) -> Float[Tensor, "token hidden"]:
        """The state that predicts each token of the answers, one answer after the other."""
        first = chunk.hidden[prompts]
        lengths = torch.tensor([len(answer) - 1 for answer in answers], device=self.device)
        if not bool(lengths.any()):
            return first
        ids = torch.tensor([t for a in answers for t in a[:-1]], device=self.device)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        within = torch.arange(len(ids), device=self.device) - starts
        positions = chunk.positions[prompts].repeat_interleave(lengths) + within
        tree = Answers.after(chunk.prefix, lengths, prompts)
        later = self.extend(ids, positions, tree)
        ends = (lengths + 1).cumsum(0)
        is_first = torch.zeros(len(ids) + len(lengths), dtype=torch.bool, device=self.device)
        is_first[ends - lengths - 1] = True
        states = later.new_zeros(len(is_first), later.shape[-1])
        return states.index_put((is_first,), first).index_put((~is_first,), later)

    @in_compute_type
    def extend(
        self, ids: Int[Tensor, " token"], positions: Int[Tensor, " token"], tree: Any
    ) -> Float[Tensor, "token hidden"]:
        """The decoder's states for one row of tokens whose attention `tree` decides."""
        output = self.text_model(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),
            use_cache=False,
            **{"tree": tree},
        )
        return output.last_hidden_state[0]

    def score_alone(
        self,
        features: Sequence[Features],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> AnswerScores:
        """The same from whole sequences, each prompt read for each answer."""
        prompts = [self._prompt(features, question) for question in questions]
        whole = [[*p, *a[:-1]] for p, a in zip(prompts, answers, strict=True)]
        parts: list[tuple[list[int], Tensor]] = []
        for rows in chunks_of([len(row) for row in whole], _CHUNK_TOKENS):
            ids, _ = pad_right([whole[row] for row in rows], self._pad_id)
            entries = [features[questions[row].owner] for row in rows]
            hidden, _ = self.run(ids.to(self.device), entries)
            starts = [len(prompts[row]) - 1 for row in rows]
            states = [
                hidden[index, start : start + len(answers[row])]
                for index, (row, start) in enumerate(zip(rows, starts, strict=True))
            ]
            parts.append((rows, torch.cat(states)))
        return self._scores(answers, parts, temperature)

    def negative_log_likelihood(
        self,
        features: Sequence[Features],
        questions: Sequence[Question],
        answers: Sequence[Sequence[int]],
    ) -> Float[Tensor, ""]:
        """Sum over all answer tokens, in nats, prompts read once where the model shares."""
        memory = self.read(features, questions)
        return -self.score(memory, range(len(answers)), answers).logprobs.sum()

    def _scores(
        self,
        answers: Sequence[Sequence[int]],
        parts: Sequence[tuple[Sequence[int], Float[Tensor, "token hidden"]]],
        temperature: float,
    ) -> AnswerScores:
        """Scores from (rows, the states that predict their tokens, row after row)."""
        ids, valid = (each.to(self.device) for each in pad_right(answers, self._pad_id))
        weight, bias = self.head(temperature)
        logprobs, entropy = (torch.zeros(ids.shape, device=self.device) for _ in range(2))
        for rows, states in parts:
            row = torch.tensor(rows, device=self.device)
            place, column = valid[row].nonzero(as_tuple=True)
            targets = ids[row[place], column]
            found = token_scores(states.to(weight.dtype) / temperature, weight, bias, targets)
            logprobs = logprobs.index_put((row[place], column), found[0])
            entropy[row[place], column] = found[1]
        return AnswerScores(logprobs, entropy, valid)

    def head(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """The head's weight, and a bias at minus infinity for forbidden tokens, / temperature."""
        linear = cast("torch.nn.Linear", self.model.get_output_embeddings())
        weight = linear.weight.float() if self.fp32_head else linear.weight
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias / temperature
        forbidden = torch.tensor(self.forbidden, dtype=torch.long, device=weight.device)
        return weight, bias.to(weight.dtype).index_fill(0, forbidden, float("-inf"))

    # text

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Text of answers, without special tokens."""
        rows = [[token for token in row if token not in self.end_ids] for row in answers]
        return self.render.tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of a complete answer with the token that ends the assistant's turn."""
        tokenizer = self.render.tokenizer
        tail = tokenizer(self.render.answer_tail, add_special_tokens=False)["input_ids"]
        ends = [token for token in tail if token in self.end_ids]
        end = ends[0] if ends else min(self.end_ids)
        return [*tokenizer(text, add_special_tokens=False)["input_ids"], end]

    def num_prompt_tokens(self, features: Features, text: str) -> int:
        """Tokens that the model reads before an answer, pictures included."""
        return len(self.render.prompt(features.expansions, text))

    def save(self, folder: Path) -> None:
        """Writes model, adapters added in, and processor in transformers' layout."""
        save_weights(self.model, folder)
        self.render.processor.save_pretrained(folder)
