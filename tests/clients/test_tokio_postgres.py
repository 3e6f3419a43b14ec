"""tokio-postgres on protected columns: as it is by casts, and wholly where it is told "text"."""

import os

import pytest

import look_ups
from twins import STATEMENTS, twins  # noqa: F401 (fixture)


@pytest.fixture
def shop(twins):
    made = twins(os.environ["CLIENTS_TOKIO_POSTGRES"], STATEMENTS)
    made.fill()
    return made


@pytest.mark.parametrize("mode", ["simple", "casts"])
def test_the_simple_protocol_and_casts_stay_as_they_are(shop, mode):
    shop.protect()
    shop.both(mode, at_least=5)
    shop.protected.assert_sealed()


@pytest.mark.parametrize(("mode", "wire_type"), [("simple", None), ("extended", "text"), ("prepared", "text")])
def test_look_ups_use_the_index(shop, server, mode, wire_type):
    look_ups.populate(shop)
    look_ups.make_searchable(shop, wire_type)
    shop.command = (*shop.command[:-1], look_ups.STATEMENTS)
    look_ups.search(shop, server, mode, at_least=20)
    shop.protected.assert_sealed()


def test_it_refuses_a_type_that_it_does_not_know(shop):
    shop.protect()
    told = shop.after("extended")
    assert "error serializing parameter 0" in told["insert"] and "cmk_text" in told["insert"]
    assert "error deserializing column 1" in told["all"] and "cmk_text" in told["all"]


@pytest.mark.parametrize("mode", ["simple", "casts", "extended", "prepared"])
def test_with_wire_type_text_everything_stays_as_it_is(shop, mode):
    shop.protect(wire_type="text")
    shop.both(mode, at_least=5)
    shop.protected.assert_sealed()


def test_what_was_prepared_before_the_protection_has_to_be_prepared_again(shop):
    told = shop.across()
    assert told["note before"] == [["pays in cash"]]
    assert [told[f"{column} {when}"] for when in ("after", "again") for column in ("note", "ssn")] == ["0A000"] * 4


def test_with_wire_type_text_what_was_prepared_goes_on(shop):
    told = shop.across(wire_type="text")
    for when in ("before", "after", "again"):
        assert (told[f"note {when}"], told[f"ssn {when}"]) == ([["pays in cash"]], [["536-90-4399"]]), when
