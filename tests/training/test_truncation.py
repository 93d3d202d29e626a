from __future__ import annotations

import torch

from separation.training.truncation import Truncation


def test_leaves_out_the_largest_errors_of_late_and_only_a_teachers():
    truncation = Truncation(targets=2, share=0.25, recent=100)
    taught = torch.ones(100)
    levels = torch.stack([torch.arange(100.0) - 120, torch.arange(100.0).flip(0) - 320], dim=1)
    assert truncation(levels, taught).all()  # nothing is known yet
    counts = truncation(levels, taught)
    assert counts[:, 0].tolist() == [1.0] * 75 + [0.0] * 25
    assert counts[:, 1].tolist() == [0.0] * 25 + [1.0] * 75
    assert truncation(levels, torch.zeros(100)).all()  # true labels always count
    assert truncation(torch.full((1, 2), -1000.0), torch.ones(1)).all()
    assert not truncation(torch.full((1, 2), 10.0), torch.ones(1)).any()


def test_true_labels_do_not_tell_what_is_large():
    truncation = Truncation(targets=1, share=0.5, recent=4)
    truncation(torch.full((8, 1), -10.0), torch.ones(8))
    truncation(torch.full((8, 1), -90.0), torch.zeros(8))
    assert truncation(torch.tensor([[-10.0], [-9.0], [-9.0]]), torch.tensor([1, 1, 0])).flatten().tolist() == [1, 0, 1]


def test_what_has_been_seen_goes_on_after_a_stop():
    before, after = Truncation(1, 0.25, 8), Truncation(1, 0.25, 8)
    before(torch.arange(-20.0, -12.0)[:, None], torch.ones(8))
    after.load_state_dict(before.state_dict())
    levels = torch.arange(-20.0, -12.0)[:, None]
    assert torch.equal(before(levels, torch.ones(8)), after(levels, torch.ones(8)))
    assert torch.equal(before.levels, after.levels)
