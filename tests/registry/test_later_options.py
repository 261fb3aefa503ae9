"""Options added after the first release do not change existing keys."""

import pytest

from bench.plan import resolve_params
from registry.core import catalogue
from registry.models import complete_params, model_options


@pytest.mark.parametrize("card", list(catalogue.models), ids=lambda card: card.name)
def test_a_later_option_is_in_a_spec_only_when_it_is_set(card):
    later = {name: option for name, option in model_options(card).items() if option.later}
    plain = resolve_params(card, {})
    assert not later.keys() & plain.keys()
    assert complete_params(card, plain).keys() == model_options(card).keys()
    if card.kind == "network":
        assert resolve_params(card, {"flip": False}) == plain
        assert resolve_params(card, {"flip": True}) == {**plain, "flip": True}
        assert complete_params(card, {**plain, "flip": True})["flip"] is True
