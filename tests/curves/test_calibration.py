"""calibration.json: written, read, chosen from by price; and what is said of a file that is none."""

from __future__ import annotations

import json
from pathlib import Path
import re

from hypothesis import given
from hypothesis import strategies as st
import pytest

from curves.stopping.calibration import (
    SHIPPED,
    Calibration,
    find_calibration,
    read_calibrations,
    write_calibrations,
)
from curves.stopping.patience import Patience
from curves.stopping.posterior import PosteriorRule
from curves.stopping.registry import make_rule

RUN = {"horizon_steps": 1000, "horizon_lr_sum": 0.1}
PRICES = (0.05, 0.1, 0.2, 0.4)


@given(
    prices=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=4, unique=True),
    value=st.floats(1e-6, 1e6),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, prices: list[float], value: float
) -> None:
    path = tmp_path_factory.mktemp("calibration") / "c.json"
    written = [Calibration(price, "gl", {"alpha": value}, {"runs": 3}) for price in prices]
    write_calibrations(path, written)
    assert read_calibrations(path) == written


def test_a_price_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_calibrations(path, [Calibration(price, "patience", {"patience": 9}) for price in (0.1, 0.3)])
    assert find_calibration(path).price == 0.1
    rule = make_rule("calibrated", **RUN, path=str(path), price=0.3)
    assert isinstance(rule, Patience)
    assert rule.patience == 9
    with pytest.raises(
        ValueError, match=r"price=0\.2: the calibration has 0\.1, 0\.3; .*analysis tune RUNS --price 0\.2"
    ):
        find_calibration(path, 0.2)


def test_the_only_price_of_a_file_needs_no_naming(tmp_path: Path) -> None:
    write_calibrations(tmp_path / "c.json", [Calibration(0.7, "none", {})])
    assert find_calibration(tmp_path / "c.json").price == 0.7


def test_the_shipped_calibration_asks_for_more_where_steps_are_dearer() -> None:
    assert [item.price for item in read_calibrations(SHIPPED)] == list(PRICES)
    rules = [make_rule("calibrated", **RUN, price=price) for price in PRICES]
    kappas = [rule.kappa for rule in rules if isinstance(rule, PosteriorRule)]
    assert len(kappas) == len(PRICES)
    assert kappas == sorted(kappas)
    assert make_rule("calibrated", **RUN) == make_rule("calibrated", **RUN, price=0.1)


DAMAGED: list[tuple[str, str]] = [
    ("not json", "cannot be read"),
    ('{"schema": 2, "calibrations": []}', "schema 2, this version reads 1"),
    ('{"schema": 1, "calibrations": []}', "no price in it"),
    ('{"schema": 1}', "'calibrations' is missing"),
    ('{"schema": 1, "calibrations": [{"price": 0.1, "rule": "gl"}]}', "'parameters' is missing"),
    ('{"schema": 1, "calibrations": [{"price": "x", "rule": "gl", "parameters": {}}]}', 'price="x"'),
    ('{"schema": 1, "calibrations": [{"price": 1, "rule": "gl", "parameters": []}]}', "parameters=[]"),
    ('{"study": "demo", "cells": []}', "'schema' is missing"),
    ("[]", "cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), DAMAGED)
def test_a_file_that_is_no_calibration_is_named_with_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        find_calibration(path)
    assert str(path) in str(caught.value)
    assert "python -m analysis tune RUNS --to FILE" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "parameters", "said"),
    [
        ("glu", {}, "unknown stop rule 'glu'"),
        ("gl", {"alfa": 1}, "no parameter alfa; it has alpha"),
        ("gl", {"alpha": "x"}, "alpha='x' must be a number"),
        ("calibrated", {}, "unknown stop rule 'calibrated'"),
    ],
)
def test_a_calibration_of_a_rule_that_does_not_exist_is_refused(
    tmp_path: Path, rule: str, parameters: dict[str, object], said: str
) -> None:
    record = {"schema": 1, "calibrations": [{"price": 0.1, "rule": rule, "parameters": parameters}]}
    (tmp_path / "c.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=re.escape(said)):
        make_rule("calibrated", **RUN, path=str(tmp_path / "c.json"))
