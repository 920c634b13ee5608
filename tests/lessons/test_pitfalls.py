"""Lesson 08: that its mistakes are mistakes, and what it says of torch beyond its own values."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parallel import launch
from torch import nn
from torch.utils.data import DistributedSampler

from ci.lesson import oracle, reader
from ci.lesson.parameters import Value
from tests.conftest import ROOT

LESSON = reader.read(ROOT / "lessons" / "08_pitfalls.py")
ORACLES = oracle.load(LESSON)
NEEDS_RANKS = [  # checks that show the wrong value and then the right one
    *("never_reduced", "summed", "mean_of_means", "same_samples", "weighted_gradient"),
    *("initial_weights", "batch_statistics"),
]


def expected(name: str, **settings: Value) -> Any:
    """What a check is to show."""
    known: dict[str, Any] = {**LESSON.defaults, **settings}
    return ORACLES[name].value(known).python()


def wrong_and_right(name: str, **settings: Value) -> tuple[NDArray[np.float64], ...]:
    """The last two values of a check; of the variances, not of the means."""
    if name == "same_samples":
        right = expected("weighted_gradient", **settings)[-1]
        return expected(name, **settings)[-1], right
    if name == "microbatches":
        return expected("scheduled", **settings), expected("accumulated", **settings)
    wrong, right = expected(name, **settings)[-2:]
    return (wrong["var"], right["var"]) if isinstance(wrong, dict) else (wrong, right)


@pytest.mark.parametrize("name", [*NEEDS_RANKS, "microbatches"])
def test_a_mistake_is_more_than_rounding(name: str) -> None:
    """With the defaults, the wrong value is off by at least one part in a thousand."""
    wrong, right = wrong_and_right(name)

    assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


@pytest.mark.parametrize("name", NEEDS_RANKS)
def test_one_rank_cannot_make_it(name: str) -> None:
    """A mistake between ranks does no harm on one rank: the lesson says so."""
    np.testing.assert_allclose(*wrong_and_right(name, world_size=1), rtol=1e-12)


def test_one_rank_can_make_the_ninth() -> None:
    """Uneven microbatches need no second rank."""
    wrong, right = wrong_and_right("microbatches", world_size=1)

    assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


@pytest.mark.parametrize("world_size", range(1, 9))
def test_a_sampler_deals_samples_like_cards(world_size: int) -> None:
    """What the oracles derive of DistributedSampler holds for batches of all small sizes."""
    for batch in range(1, 41):
        settings: dict[str, Value] = {"world_size": world_size, "batch": batch}
        ranks, samples = range(world_size), range(batch)
        hands = [list(DistributedSampler(samples, world_size, r, shuffle=False)) for r in ranks]
        assert expected("dealt", **settings).tolist() == hands
        assert expected("times_dealt", **settings).tolist() == [
            sum(hand.count(sample) for hand in hands) for sample in samples
        ]


def synchronize(device: torch.device, samples: torch.Tensor) -> torch.Tensor:
    """A rank program. Ranks import it from this file."""
    output: torch.Tensor = nn.SyncBatchNorm(2)(samples)
    return output


@pytest.mark.kernel
def test_sync_batch_norm_refuses_the_cpu() -> None:
    """So the lesson synchronizes by hand there, and says that this layer was not tested."""
    with pytest.raises(RuntimeError, match="SyncBatchNorm expected input tensor to be on GPU"):
        launch(synchronize, 2, torch.ones(6, 2))
