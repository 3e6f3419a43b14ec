"""node-postgres on protected columns, as on text columns."""

import os

import pytest

import look_ups
from twins import HERE, STATEMENTS, assert_stored_as_shown, twins  # noqa: F401 (fixture)


@pytest.fixture
def shop(twins):
    made = twins("node", HERE / "node" / "program.js", STATEMENTS)
    made.environment = {"NODE_PATH": os.environ["CLIENTS_NODE_PATH"]}
    made.fill()
    return made


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("wire_type", [None, "text"])
def test_look_ups_use_the_index(shop, server, mode, wire_type):
    look_ups.populate(shop)
    look_ups.make_searchable(shop, wire_type)
    shop.command = (*shop.command[:-1], look_ups.STATEMENTS)
    look_ups.search(shop, server, mode, at_least=20)
    shop.protected.assert_sealed()


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_statements_stay_as_they_are(shop, mode):
    shop.protect()
    shop.both(mode, at_least=40)
    shop.protected.assert_sealed()


def test_a_pool_stays_as_it_is(shop):
    shop.protect()
    shop.both("pool")
    shop.protected.assert_sealed()


def test_an_array_arrives_as_a_string(shop):
    shop.protect()
    found, builtin = shop.after("arrays")["arrays"]
    assert found == [{"ssn": "536-90-4399", "all": "{536-90-4399,536-90-4399}"}]
    assert builtin == [False, False]


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared", "pool", "arrays"])
def test_with_wire_type_text_everything_stays_as_it_is(shop, mode):
    shop.protect(wire_type="text")
    shop.both(mode)
    shop.protected.assert_sealed()


def test_what_was_prepared_before_the_protection_has_to_be_prepared_again(shop):
    told = shop.across()
    assert told["note before"] == [["pays in cash"]]
    assert [told[f"{column} {when}"] for when in ("after", "again") for column in ("note", "ssn")] == ["0A000"] * 4


def test_with_wire_type_text_what_was_prepared_goes_on(shop):
    told = shop.across(wire_type="text")
    for when in ("before", "after", "again"):
        assert (told[f"note {when}"], told[f"ssn {when}"]) == ([["pays in cash"]], [["536-90-4399"]]), when


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_a_parameter_that_looks_like_bytes_is_stored_as_text(shop, mode):
    assert_stored_as_shown(shop.calls(mode))
