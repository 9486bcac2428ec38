"""Truth tests of the mean of several answers and of how much they differ."""

import numpy as np

from spanseg.averaging import averaged


def _answers(count: int) -> list[np.ndarray]:
    """Two classes that compete, so that each voxel's probabilities sum to 255."""
    share = np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3)).astype(np.uint8)
    return [np.stack([255 - one, one]) for one in share]


def test_one_answer_stays_as_it_is():
    (answer,) = _answers(1)
    found = averaged([answer])
    assert found.probabilities is answer
    assert found.std is None and found.spread(np.ones((5, 4, 3), dtype=bool)) == {}


def test_the_mean_is_rounded_to_the_nearest():
    answers = _answers(8)
    found = averaged(iter(answers))
    assert found.probabilities.dtype == np.uint8
    assert np.abs(found.probabilities - np.mean(answers, axis=0)).max() <= 0.5


def test_the_spread_is_the_deviation_of_the_winning_class():
    answers = _answers(8)
    found = averaged(answers)
    winner = found.probabilities.argmax(0)[None]
    of_winner = np.stack([np.take_along_axis(one, winner, 0)[0] for one in answers]) / 255
    np.testing.assert_allclose(found.std, of_winner.std(axis=0), atol=1e-6)
    labels = np.stack([one.argmax(0) for one in answers])
    np.testing.assert_array_equal(found.differs, labels.min(0) != labels.max(0))


def test_answers_that_agree_have_no_spread():
    (answer,) = _answers(1)
    found = averaged([answer] * 3)
    np.testing.assert_array_equal(found.probabilities, answer)
    assert not found.std.any() and not found.differs.any()


def test_as_many_answers_as_may_be_given_do_not_overflow():
    """One more would: 257 answers of 255 fill 16 bits, and what rounds the mean comes on top."""
    found = averaged([np.full((2, 1, 1, 1), 255, dtype=np.uint8)] * 256)
    assert (found.probabilities == 255).all() and not found.std.any()


def test_the_summary_counts_the_brain_alone():
    one = np.zeros((2, 4, 1, 1), dtype=np.uint8)
    one[0, :2], one[1, 2:] = 255, 255
    other = one[::-1].copy()
    other[:, 3] = one[:, 3]  # of four voxels three turn from one class to the other
    found = averaged([one, other])
    brain = np.array([False, False, True, True]).reshape(4, 1, 1)
    assert found.spread(brain) == {"mean_std": 0.25, "label_differs_share": 0.5}
    assert found.spread(np.zeros_like(brain)) == {}
