"""The split: nested subsets, one held-out set for every size, no image on both sides."""

from pathlib import Path
import random

from hypothesis import given
from hypothesis import strategies as st
import pytest

from conf.errors import RequestError
from finetune.images import Example, split_examples, split_fold


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


@given(total=st.integers(3, 30), folds=st.integers(2, 30), seed=st.integers(0, 99))
def test_every_image_is_held_out_once_and_all_folds_train_on_as_many(
    total: int, folds: int, seed: int
) -> None:
    folds = min(folds, total)
    splits = [split_fold(examples(total), fold, folds, None, seed) for fold in range(folds)]
    held_out = [example for split in splits for example in split.held_out]
    assert sorted(held_out, key=str) == sorted(examples(total), key=str)
    assert {len(split.training) for split in splits} == {total - -(-total // folds)}
    assert not any(set(split.training) & set(split.held_out) for split in splits)
    fewer = split_fold(examples(total), 0, folds, 1, seed)
    assert (fewer.held_out, fewer.training) == (splits[0].held_out, splits[0].training[:1])


def test_without_a_number_of_folds_one_image_is_left_out() -> None:
    split = split_fold(examples(5), 4, None, None, 0)
    assert (len(split.held_out), len(split.training), split.folds) == (1, 4, 5)


@pytest.mark.parametrize(
    ("total", "fold", "folds", "images", "words"),
    [
        (2, 0, None, None, "folds need 3 images or more, the folder has 2"),
        (
            5,
            5,
            None,
            None,
            "dataset.fold=5, dataset.folds=5: the folder has 5 usable images: 5 folds or fewer",
        ),
        (5, 0, 6, None, "dataset.folds=6: the folder has 5 usable images"),
        (5, 0, 2, 3, "2 folds of 5 usable images leave 2 to train on; use 2 or fewer"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(
    total: int, fold: int, folds: int | None, images: int | None, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        split_fold(examples(total), fold, folds, images, 0)
