"""Lesson 08: that its mistakes are mistakes, and what it says of torch beyond its own values."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parallel import launch, pitfalls
from torch import nn
from torch.utils.data import DistributedSampler

from ci.lesson import oracle, reader
from ci.lesson.parameters import Value
from tests.conftest import ROOT

LESSON = reader.read(ROOT / "lessons" / "08_pitfalls.py")
ORACLES = oracle.load(LESSON)
NEEDS_RANKS = [
    ("drifted", "together"),
    ("added", "averaged"),
    ("evaluated_apart", "evaluated"),
    ("same_samples_gradient", "weighed_gradient"),
    ("padded_gradient", "weighed_gradient"),
    ("begun_apart", "begun_together"),
    ("statistics_apart", "statistics"),
]


def expected(name: str, **settings: Value) -> NDArray[np.float64]:
    """What a check is to show; of several tensors the last one, where it tells more."""
    known: dict[str, Any] = {**LESSON.defaults, **settings}
    value = ORACLES[name].value(known).python()
    if isinstance(value, dict):
        value = value["var"]
    if name in ("evaluated_apart", "begun_apart"):
        value = value[-1]
    return np.asarray(value)


@pytest.mark.parametrize(("wrong", "right"), [*NEEDS_RANKS, ("scheduled", "accumulated")])
def test_a_mistake_is_more_than_rounding(wrong: str, right: str) -> None:
    """With the defaults, the wrong value is off by at least one part in a thousand."""
    shown, meant = expected(wrong), expected(right)

    assert np.abs(shown - meant).max() > 1e-3 * np.abs(meant).max()


@pytest.mark.parametrize(("wrong", "right"), NEEDS_RANKS)
def test_one_rank_can_not_make_it(wrong: str, right: str) -> None:
    """A mistake between ranks does no harm where there is one: the lesson says so."""
    np.testing.assert_allclose(
        expected(wrong, world_size=1), expected(right, world_size=1), rtol=1e-12
    )


def test_one_rank_can_make_the_ninth() -> None:
    """Uneven microbatches need no second rank."""
    shown, meant = expected("scheduled", world_size=1), expected("accumulated", world_size=1)

    assert np.abs(shown - meant).max() > 1e-3 * np.abs(meant).max()


@pytest.mark.parametrize("world_size", range(1, 9))
def test_a_sampler_deals_rows_like_cards(world_size: int) -> None:
    """What the oracles derive of DistributedSampler holds for batches of all small sizes."""
    for batch in range(1, 41):
        settings: dict[str, Value] = {"world_size": world_size, "batch": batch}
        ranks, rows = range(world_size), range(batch)
        hands = [list(DistributedSampler(rows, world_size, r, shuffle=False)) for r in ranks]
        kept = [
            list(DistributedSampler(rows, world_size, r, shuffle=False, drop_last=True))
            for r in ranks
        ]
        assert expected("dealt", **settings).tolist() == hands
        assert expected("times_dealt", **settings).tolist() == [
            sum(hand.count(row) for hand in hands) for row in rows
        ]
        assert expected("times_dropped", **settings).tolist() == [
            sum(hand.count(row) for hand in kept) for row in rows
        ]


@pytest.mark.kernel
def test_sync_batch_norm_refuses_the_cpu() -> None:
    """So the lesson synchronizes by hand there, and says that this layer was not tested."""
    rows = torch.ones(6, 2).tensor_split(2)

    with pytest.raises(RuntimeError, match="SyncBatchNorm expected input tensor to be on GPU"):
        launch(pitfalls.normalize, 2, nn.SyncBatchNorm(2), rows)
