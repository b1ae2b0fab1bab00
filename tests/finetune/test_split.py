"""The split: nested subsets, one held-out set for every size, no image on both sides."""

from pathlib import Path
import random

from hypothesis import given
from hypothesis import strategies as st

from finetune.images import Example, split_examples


def examples(count: int) -> list[Example]:
    return [Example(Path(f"{index}.png"), f"caption {index}", f"content-{index}") for index in range(count)]


@given(
    total=st.integers(2, 60),
    held_out=st.integers(0, 30),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 2**32),
)
def test_subsets_nest_and_the_held_out_set_ignores_the_size(
    total: int, held_out: int, sizes: tuple[int, int], seed: int
) -> None:
    held_out = min(held_out, total - 1)
    small, large = sorted(min(size, total - held_out) for size in sizes)
    all_of_them = examples(total)
    few = split_examples(all_of_them, held_out, small, seed)
    many = split_examples(all_of_them, held_out, large, seed)
    assert few.held_out == many.held_out
    assert few.training == many.training[:small]
    assert not set(many.training) & set(many.held_out)
    assert (len(few.held_out), len(few.training), len(many.training)) == (held_out, small, large)


@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter(seed: int, order: random.Random) -> None:
    shuffled = examples(20)
    order.shuffle(shuffled)
    assert split_examples(shuffled, 5, 8, seed) == split_examples(examples(20), 5, 8, seed)


@given(seed=st.integers(0, 1000))
def test_another_image_moves_few_others(seed: int) -> None:
    before, after = (split_examples(examples(count), 8, None, seed) for count in (40, 41))
    assert len(set(before.held_out) - set(after.held_out)) <= 1


def test_seeds_differ() -> None:
    splits = {tuple(split_examples(examples(40), 8, 8, seed).held_out) for seed in range(20)}
    assert len(splits) == 20
