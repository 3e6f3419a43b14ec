"""psycopg's look-ups find in a searchable column what they found in a text column, by its index."""

import pytest

import look_ups
import test_client_psycopg
from twins import twins  # noqa: F401 (fixture)

MODES = {"text": None, "text, told text": "text", "binary, told text": "text"}


@pytest.fixture
def shop(twins):
    """Makes two filled databases, for results as text or in binary."""

    def make(results):
        made = twins(*test_client_psycopg.PROGRAM, results)
        made.both("create")
        look_ups.populate(made)
        return made

    return make


@pytest.mark.parametrize("mode", MODES)
def test_look_ups_use_the_index(shop, server, mode):
    made = shop(mode.partition(",")[0])
    look_ups.make_searchable(made, wire_type=MODES[mode])
    checks = look_ups.search(made, server, "look-ups", at_least=25)
    assert checks["one s"] == [[1000, "note 1000"]]
    made.protected.assert_sealed()


def test_look_ups_use_the_index_while_old_rows_are_not_sealed(shop, server):
    made = shop("text")
    look_ups.make_searchable(made, rewrite=False, seal=False)
    # An index of tokens does not see that a new value equals an old one that has none.
    look_ups.search(made, server, "look-ups", at_least=25, but=["upsert of an old one", "also: by its end"])
    states = made.protected.dba("SELECT DISTINCT cmk.is_sealed(ssn) FROM customer WHERE ssn IS NOT NULL")
    assert sorted(states) == [(False,), (True,)]
