"""What psycopg 3 sees of a protected column, and where it is not what it saw of a text column."""

import psycopg
import pytest

from twins import HERE, PYTHON, twins  # noqa: F401 (fixture)

PROGRAM = (PYTHON, HERE / "psycopg_program.py")


@pytest.fixture
def protected(twins):
    """A filled database with protected columns."""
    shop = twins(*PROGRAM, "text")
    shop.protected.run([*PROGRAM, "text", "create"])
    shop.protect()
    return shop.protected


def test_statements_stay_as_they_are(twins):
    shop = twins(*PROGRAM, "text")
    shop.both("create")
    shop.protect()
    shop.both("work", at_least=40)
    shop.protected.assert_sealed()


def test_statements_stay_as_they_are_while_old_rows_are_not_sealed(twins):
    shop = twins(*PROGRAM, "text")
    shop.both("create")
    shop.protect(rewrite=False, seal=False)
    shop.both("work", at_least=40)
    states = shop.protected.dba("SELECT DISTINCT cmk.is_sealed(ssn) FROM customer WHERE ssn IS NOT NULL")
    assert sorted(states) == [(False,), (True,)]


def test_binary_results_are_the_bytes_of_the_text(protected):
    with protected.connect() as connection:
        rows = connection.execute("SELECT ssn FROM customer WHERE number = 1", binary=True).fetchall()
        assert rows == [(b"536-90-4399",)] * 2
        rows = connection.execute("SELECT ssn::text FROM customer WHERE number = 1", binary=True).fetchall()
        assert rows == [("536-90-4399",)] * 2


def test_an_array_arrives_as_a_string(protected):
    with protected.connect() as connection:
        arrays = "SELECT array_agg(ssn), array_agg(ssn::text) FROM customer WHERE number = 1"
        assert connection.execute(arrays).fetchone() == ("{536-90-4399,536-90-4399}", ["536-90-4399"] * 2)


def test_copy_gives_plaintext_only_of_what_is_cast(protected):
    with protected.connect() as connection, connection.cursor() as cursor:

        def lines(source):
            with cursor.copy(f"COPY {source} TO STDOUT") as copy:
                return b"".join(copy).decode().splitlines()

        for source in ("customer (ssn)", "(SELECT ssn FROM customer WHERE number = 1)"):
            assert all(line == "\\N" or line.startswith("cmk1:") for line in lines(source)), source
        assert lines("(SELECT ssn::text FROM customer WHERE number = 1)") == ["536-90-4399"] * 2


def test_a_statement_prepared_before_the_protection_has_to_be_prepared_again(twins):
    shop = twins(*PROGRAM, "text")
    shop.protected.run([*PROGRAM, "text", "create"])
    shop.protected.prepare()
    with shop.protected.connect() as connection:

        def execute(sql):
            return connection.execute(sql, prepare=True).fetchall()

        star = "SELECT ssn FROM customer WHERE id = 1"
        insert = "INSERT INTO customer (tenant_id, number, ssn) VALUES ('acme', 50, 'x') RETURNING id"
        assert execute(star) == [("536-90-4399",)]
        connection.execute(
            "PREPARE own (text) AS INSERT INTO customer (tenant_id, number, ssn) VALUES ('acme', 51, $1)"
        )
        shop.protected.protect()
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="must not change result type"):
            execute(star)
        connection.execute("EXECUTE own ('goes on')")
        connection.execute("DEALLOCATE ALL")
        assert execute(star) == [("536-90-4399",)]
        assert len(execute(insert)) == 1
    shop.protected.assert_sealed()
