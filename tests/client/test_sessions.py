"""Whose money a session budget counts."""

from __future__ import annotations

from decimal import Decimal

import pytest

from nbllm import Client
from nbllm.errors import BudgetExceeded
from nbllm.testing import FakeProvider, offline


@offline()
def test_all_clients_of_a_process_pay_into_one_session(tmp_path):
    """A session budget holds for the process, not for each Client that it makes; usage() sees the calls of all of them."""
    fakes = {"simulated": FakeProvider()}
    with Client(home=tmp_path, providers=fakes) as one, Client(home=tmp_path, providers=fakes) as two:
        assert one.session == two.session
        spent = one.ask("hello", model="sim/large").cost_usd
        assert spent
        assert two.spent_session_usd() == spent
        assert two.usage("total")[0].calls == 1
        two.set_budget("session", spent)
        with pytest.raises(BudgetExceeded):
            two.ask("something else", model="sim/large")


@offline()
def test_a_named_session_is_its_own(tmp_path):
    """session= (or NBLLM_SESSION) names another."""
    with Client(home=tmp_path, session="nightly") as client:
        assert client.session == "nightly"
        assert client.spent_session_usd() == Decimal(0)
