import numpy as np
import torch

from camelsight.ground import seeding
from conftest import global_generators_left_alone


def test_the_same_words_give_the_same_draws_and_other_words_others():
    draws = {
        words: seeding.numpy_generator(*words).random()
        for words in [(1, "a", "b"), (2, "a", "b"), (1, "ab", ""), (1, "a", "c"), (1, "a", "b", 0)]
    }
    assert len(set(draws.values())) == len(draws)
    assert seeding.numpy_generator(1, "a", "b").random() == draws[1, "a", "b"]


def test_known_value():
    """Made with this function when it was written; a change would change every map and every result."""
    assert seeding.entropy(1, "IllustrisTNG", "phases", 0) == 2715193389486968859


def test_torch_generators_follow_the_words_and_leave_the_global_one():
    with global_generators_left_alone():
        one, two, other = (torch.rand(3, generator=seeding.torch_generator(1, word)) for word in "xxy")
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_entropy_does_not_depend_on_the_type_of_an_integer():
    assert seeding.entropy(1, np.int64(3)) == seeding.entropy(1, 3)
