"""From overrides to a typed configuration; every mistake is one clear line."""

from collections.abc import Sequence
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from conf.compose import groups, known_keys, load_config, options
from conf.errors import RequestError

FILL = {
    "folder": ["dataset.path=photos"],
    "custom": ["base_model.path=model"],
    "instance": ["captions.text=a cat"],
    "class": ["captions.class_word=fox"],
    "dreambooth": ["captions.class_word=fox"],
    "dreambooth_lora": ["captions.class_word=fox"],
}
FILL["recommended"] = ["budget.study=runs/demo"]


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in groups() if group != "experiment" for option in options(group)],
)
def test_every_option_of_every_group_composes(group: str, option: str) -> None:
    config = load_config([f"{group}={option}", *FILL.get(option, [])])
    if group not in ("captions", "space"):
        assert getattr(config, group).name == option


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_in_every_cell(experiment: str) -> None:
    whole = [f"experiment={experiment}", "dataset.path=assets/line-drawings"]
    sweep = load_config(whole).sweep
    factors = sweep.factors
    assert factors or sweep.folds or sweep.cooldown.branches
    for levels in itertools.product(*factors.values()):
        cell = [f"{group}={option}" for group, option in zip(factors, levels, strict=True)]
        config = load_config([*whole, *cell])
        assert [getattr(config, group).name for group in factors] == list(levels)


def test_the_command_line_beats_the_experiment_and_the_experiment_the_default() -> None:
    assert load_config(["experiment=demo"]).study == "demo"
    assert load_config(["experiment=demo", "study=mine", "budget.max_steps=200"]).budget.max_steps == 200
    assert load_config(["experiment=demo", "method=text_to_image"]).method.adapter == "none"


def test_no_experiment_takes_an_earlier_one_back_and_a_mapping_sets_keys_of_a_group() -> None:
    assert load_config(["experiment=null"]).study is None
    assert load_config(["experiment=demo", "experiment=null"]).study is None
    assert load_config(["method={rank: 4}"]).method.rank == 4


def test_a_budget_brings_its_stop_rule_unless_another_is_asked_for() -> None:
    assert load_config(["budget=auto"]).stopping.name == "posterior"
    assert load_config(["budget=auto", "stopping=patience"]).stopping.name == "patience"
    assert load_config(["budget=recommended", "budget.study=runs/demo"]).stopping.name == "none"


def test_a_folder_of_ones_own_is_used_whole_unless_a_size_is_asked_for() -> None:
    assert load_config(["dataset=folder", "dataset.path=photos"]).dataset_size.images is None
    assert load_config(["dataset=folder", "dataset.path=photos", "dataset_size=n4"]).dataset_size.images == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=foo"], ["method=foo", "lora", "text_to_image"]),
        (["resolution=px100"], ["resolution=px100", "px64", "px512"]),
        (["resolution=512"], ["resolution=512", "must be one of", "did you mean px512?"]),
        (["dataset_size=8"], ["dataset_size=8", "must be one of", "did you mean n8?"]),
        (["method=null"], ["method=null", "must be one of dreambooth, dreambooth_lora, lora, text_to_image"]),
        (["launch=null"], ["launch=null", "must be one of local"]),
        (["method=true"], ["method=true", "lora, text_to_image"]),
        (["method="], ["method=", "lora, text_to_image"]),
        (["~method"], ["~method", "lora, text_to_image"]),
        (["hydra=3"], ["Config group override"]),
        (
            ["method=[lora,text_to_image]"],
            ["method=[lora,text_to_image]", "must be one of", "sweep.factors.method=[lora,text_to_image]"],
        ),
        (["method=lora,text_to_image"], ["must be one of", "sweep.factors.method=[lora,text_to_image]"]),
        (["experiment=[demo,calibrate]"], ["experiment=[demo,calibrate]", "must be one of"]),
        (["optimizer.lr='${optimizer.lr}'"], ["optimizer.lr", "nterpolation"]),
        (["launch.command=[]"], ["launch.command=[]", "launch.command=null"]),
        (["samples.guidance_scale=inf"], ["samples.guidance_scale=inf", "finite"]),
        (["samples.inference_steps=1001"], ["samples.inference_steps=1001", "at most 1000"]),
        (["samples.ratio=inf"], ["samples.ratio=inf", "finite"]),
        (["optimizer.weight_decay=inf"], ["optimizer.weight_decay=inf", "finite"]),
        (["space.parameters=[{name: optimizer.lr, low: 1, high: inf}]"], ["optimizer.lr", "finite bounds"]),
        (["methd=lora"], ["methd", "did you mean method"]),
        (["optimizer.lrr=3"], ["optimizer.lrr", "did you mean optimizer.lr"]),
        (["+optimizer.lrr=3"], ["optimizer.lrr", "did you mean optimizer.lr"]),
        (["+data.typo=5"], ["data", "dataset"]),
        (["+sweep.sampler.sed=5"], ["sweep.sampler.sed", "sweep.sampler.seed"]),
        (["budget.max_steps=-3"], ["budget.max_steps=-3", "1 or more"]),
        (["budget.max_steps=many"], ["budget.max_steps", "many"]),
        (["resolution.pixels=100"], ["resolution.pixels=100", "multiple of 8", "96"]),
        (["dataset=folder"], ["dataset.path is not set", "dataset.path=VALUE"]),
        (["dataset.held_out=2"], ["dataset.held_out=2", "8 or more"]),
        (["optimizer.lr=0"], ["optimizer.lr=0", "positive"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan", "positive"]),
        (["optimizer.schedule=step"], ["optimizer.schedule=step", "constant, cosine, linear"]),
        (["method.rank=0"], ["method.rank=0", "1 or more"]),
        (["method.alpha=0"], ["method.alpha=0", "train nothing"]),
        (["evaluation.ratio=1"], ["evaluation.ratio=1", "above 1"]),
        (["evaluation.enabled=false"], ["stopping=evidence", "evaluation.enabled=true"]),
        (["optimizer.warmup_steps=400"], ["optimizer.warmup_steps=400", "budget.max_steps=400"]),
        (["budget.horizon=300"], ["budget.horizon=300", "budget.max_steps=400"]),
        (["captions=instance", "captions.text=null"], ["captions.text=null", "captions.text="]),
        (["captions=instance"], ["captions.class_word=null", "captions.class_word=fox"]),
        (["optimizer.lr=1,2"], ["optimizer.lr=1,2"]),
        (["dataset.path=[1"], ["dataset.path=[1"]),
        (["sweep.trials=0"], ["sweep.trials=0"]),
        (
            ["sweep.sampler.name=bayes"],
            ["sweep.sampler.name=bayes", "tpe, gp, cmaes, qmc, random, grid, nsga2"],
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_value_and_remedy(
    overrides: Sequence[str], words: Sequence[str]
) -> None:
    with pytest.raises(RequestError) as caught:
        load_config(overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([key for key in known_keys() if "." in key]), st.data())
def test_a_misspelt_key_never_passes(key: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(key.index(".") + 1, len(key)))
    misspelt = key[:at] + "q" + key[at:]
    for prefix in ("", "+"):
        with pytest.raises(RequestError, match="q"):
            load_config([f"{prefix}{misspelt}=1"])


def test_a_value_for_what_holds_several_keys_names_them() -> None:
    with pytest.raises(
        RequestError, match=r"^sweep\.sampler=random: holds several keys; set one of sweep\.sampler\.name, "
    ):
        load_config(["sweep.sampler=random"])
