"""The benchmark of knowledge: its verdict on made-up figures, and a network that no longer hears."""

from typing import Any

import pytest
import torch

import tiny
from spanseg import model
from spanseg.facts import Facts
from spanseg.sentences import load_table
from spanseg.told import Teller

knowledge = tiny.benchmark("knowledge")
PEOPLE = 12


def lines(oracle: float = 0.9, wrong: float = 0.6) -> list[dict[str, Any]]:
    """Dice of the cortex: 0.8 but for the oracle and the wrong age, with some spread; half are newborn."""
    values = {("oracle", "as it is"): oracle, ("nothing", "as it is"): 0.8}
    for kind in (knowledge.PROMPTED, knowledge.REALISTIC):
        values |= {(kind, row): wrong if row == "wrong" else 0.8 for row in knowledge.ROWS}
    return [
        {"network": kind, "row": row, "person": n, "age_years": 0.1 if n % 2 else 40.0, "structure": name}
        | {"dice": value + 0.01 * ((7 * n + len(kind + row)) % 5)}
        for (kind, row), value in values.items()
        for n in range(PEOPLE)
        for name in knowledge.STRUCTURES
    ]


def verdict(heard: float = 3.0, silent: float = 0.0, **means: float) -> tuple[bool, dict[str, bool]]:
    audit = {knowledge.PROMPTED: {"40 years": heard}, "silenced": {"40 years": silent}}
    found = knowledge.summary(lines(**means)) | {"audit_median_change_percent": audit}
    return knowledge.passed(found), found["checks"]


def test_a_network_that_uses_what_it_is_told_passes() -> None:
    assert verdict()[0]


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({"oracle": 0.82}, "the oracle is better by at least 5 points"),
        ({"wrong": 0.8}, "a wrong age lowers Dice"),
        ({"heard": 0.0}, "the audit reports a change"),
        ({"silent": 0.01}, "and none once the tokens are silenced"),
    ],
)
def test_each_check_can_fail_alone(change: dict[str, float], fails: str) -> None:
    good, checks = verdict(**change)
    assert not good and [name for name, holds in checks.items() if not holds] == [fails]


def test_a_wrong_age_is_far_from_the_right_one() -> None:
    for age in (0.0, 0.4, 0.6, 1.0, 40.0):
        assert abs((knowledge.facts_of("wrong", age)[0].age_years or 0.0) - age) >= 0.5
    assert knowledge.facts_of("missing", 3.0) == [Facts()]


def test_a_silenced_network_hears_nothing() -> None:
    recipe = knowledge.recipe_of(knowledge.PROMPTED, 1)
    torch.manual_seed(0)
    network = model.build(recipe).eval()
    with torch.no_grad():
        for parameter in network.meetings.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tell, image = Teller(load_table(), ["age"]), torch.rand(1, 1, *model.canvas_of(recipe).shape)

    def answers() -> list[torch.Tensor]:
        with torch.no_grad():
            return [network(image, tell(Facts(age_years=age))) for age in (0.0, 40.0)]

    assert not torch.equal(*answers())
    knowledge.silence(network)
    assert torch.equal(*answers())
