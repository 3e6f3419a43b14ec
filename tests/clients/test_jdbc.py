"""PostgreSQL's JDBC driver on protected columns, as on text columns."""

import os

import pytest

import look_ups
from tcp import Port
from twins import STATEMENTS, assert_stored_as_shown, twins  # noqa: F401 (fixture)

STATEMENT_MODES = ["simple", "extended", "prepared", "unspecified", "cursor"]


@pytest.fixture
def shop(twins, server):
    port = Port(f"{server.socket}/.s.PGSQL.5432")
    made = twins("java", "-cp", os.environ["CLIENTS_CLASS_PATH"], "Program", STATEMENTS)
    made.environment = {"JDBC_PORT": str(port.number)}
    made.fill()
    yield made
    port.close()


@pytest.mark.parametrize("mode", STATEMENT_MODES)
def test_statements_stay_as_they_are(shop, mode):
    shop.protect()
    shop.both(mode, at_least=40)
    shop.protected.assert_sealed()


@pytest.mark.parametrize("mode", STATEMENT_MODES)
@pytest.mark.parametrize("wire_type", [None, "text"])
def test_look_ups_use_the_index(shop, server, mode, wire_type):
    look_ups.populate(shop)
    look_ups.make_searchable(shop, wire_type)
    shop.command = (*shop.command[:-1], look_ups.STATEMENTS)
    look_ups.search(shop, server, mode, at_least=20)
    shop.protected.assert_sealed()


def test_batches_and_updatable_results_stay_as_they_are(shop):
    shop.protect()
    shop.both("batch", at_least=3)
    shop.protected.assert_sealed()


def test_objects_are_of_another_type(shop):
    shop.protect()
    told = shop.after("objects")
    assert told["class"] == "org.postgresql.util.PGobject 536-90-4399"
    assert told["type"] == "cmk_text 1111"  # java.sql.Types.OTHER
    assert told["update"] == 2
    shop.protected.assert_sealed()


@pytest.mark.parametrize("mode", [*STATEMENT_MODES, "batch", "objects"])
def test_with_wire_type_text_everything_stays_as_it_is(shop, mode):
    shop.protect(wire_type="text")
    shop.both(mode)
    shop.protected.assert_sealed()


@pytest.mark.parametrize("wire_type", [None, "text"])
def test_what_was_prepared_before_the_protection_is_prepared_again(shop, wire_type):
    told = shop.across(wire_type)
    for when in ("before", "after", "again"):
        assert (told[f"note {when}"], told[f"ssn {when}"]) == ([["pays in cash"]], [["536-90-4399"]]), when


@pytest.mark.parametrize("mode", STATEMENT_MODES)
def test_a_parameter_that_looks_like_bytes_is_stored_as_text(shop, mode):
    assert_stored_as_shown(shop.calls(mode))
