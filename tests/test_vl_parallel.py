"""Shards: how a batch is cut, and that the parts' gradients add up to the whole's."""

import pytest
import torch
from torch import nn

from tests.tiny_vl import TEXTS, picture_of_noise, tiny_policy
from vl.parallel import Shards
from vl.policy import Question


def test_a_batch_is_cut_into_consecutive_parts_of_nearly_equal_size() -> None:
    assert Shards(2).split([1, 2, 3, 4, 5]) == [[1, 2], [3, 4, 5]]
    assert Shards(4).split("ab") == [["a"], ["b"]]
    with pytest.raises(ValueError, match="num_shards: found 0"):
        Shards(0)


def test_results_come_in_the_order_of_the_items() -> None:
    assert Shards(3).map(lambda n: n * n, [3, 1, 2]) == [9, 1, 4]


def test_gradients_of_the_shares_add_up_and_unused_parameters_get_none() -> None:
    used, unused = nn.Parameter(torch.tensor([2.0, 3.0])), nn.Parameter(torch.tensor(1.0))
    losses = [lambda: used[0] ** 2, lambda: 5.0 * used[1] + used[0]]
    Shards(2).backward([used, unused], losses)
    assert used.grad is not None
    torch.testing.assert_close(used.grad, torch.tensor([5.0, 5.0]))  # 2 * 2 + 1, 5
    assert unused.grad is None


def test_a_share_without_gradient_adds_nothing() -> None:
    param = nn.Parameter(torch.tensor(4.0))
    Shards(2).backward([param], [lambda: param * 3.0, lambda: torch.zeros(())])
    assert param.grad is not None and param.grad.item() == 3.0


def test_two_shards_of_an_sft_batch_give_the_whole_batchs_gradient() -> None:
    policy = tiny_policy()
    policy.model.requires_grad_(True)
    params = list(policy.model.parameters())
    entries = [policy.encode([picture_of_noise(number)]) for number in range(4)]
    answers = [policy.encode_answer(f"\\boxed{{{row}}}") for row in range(8)]
    tokens = sum(map(len, answers))

    def share(first: int, last: int):
        features = policy.features(entries[first:last])
        rows = range(2 * first, 2 * last)
        asked = [Question(owner=row // 2 - first, text=TEXTS[row % 4]) for row in rows]
        mine = answers[2 * first : 2 * last]
        return policy.negative_log_likelihood(features, asked, mine) / tokens

    Shards(1).backward(params, [lambda: share(0, 4)])
    whole = [None if p.grad is None else p.grad.clone() for p in params]
    Shards(2).backward(params, [lambda: share(0, 2), lambda: share(2, 4)])
    for param, expected in zip(params, whole, strict=True):
        torch.testing.assert_close(param.grad, expected, rtol=1e-4, atol=1e-6)
