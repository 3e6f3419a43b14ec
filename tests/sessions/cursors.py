"""A table of one tenant's values, a role that may read them and one that may not, and cursors between them."""

import contextlib

import psycopg
import pytest

from support import CANARY, grant, unique

TEXT = CANARY.decode()
# Says a plaintext aloud, should it ever see one.
LEAK = ("CREATE FUNCTION pg_temp.leak(v text) RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE NOTICE '%', v; RETURN v; END $$")
# What a function does with a cursor that it got.
FETCHES = {
    "fetch into": "DECLARE v text; BEGIN FETCH NEXT FROM c INTO v; RETURN v; END",
    "move": "BEGIN MOVE NEXT FROM c; RETURN NULL; END",
    "execute fetch": "DECLARE v text; BEGIN EXECUTE 'FETCH ' || c INTO v; RETURN v; END",
    "execute move": "BEGIN EXECUTE 'MOVE ALL ' || c; RETURN NULL; END",
    "loop": "DECLARE v text; a text[]; BEGIN LOOP FETCH c INTO v; EXIT WHEN NOT FOUND; a := a || v;"
            " END LOOP; RETURN a::text; END",
}


class Scene:
    """A table of one tenant's values, an owner who has a grant, and a nobody who hasn't."""

    def __init__(self, drill, session):
        self.drill, self._session = drill, session
        self.tenant = drill.tenant()
        self.owner, self.nobody = unique("owner"), unique("nobody")
        for role in (self.owner, self.nobody):
            self.dba_runs(f"CREATE ROLE {role} LOGIN")
            self.dba_runs(f"GRANT SELECT ON customer TO {role}")
        self.dba_runs(f"GRANT {self.nobody} TO {self.owner}")
        grant(drill.dba, self.tenant, self.owner)
        self.opens = "cmk_decrypt_text(tenant, sealed)"
        self.source = f"FROM customer, generate_series(1, 5) WHERE tenant = '{self.tenant}'"
        self.reads = f"SELECT {self.opens} {self.source}"

    def dba_runs(self, sql):
        self.drill.dba.run(sql)

    def sql(self, text):
        return text.format(reads=self.reads, opens=self.opens, source=self.source)

    def connect(self, role):
        return self._session(role, dbname="postgres", on=self.drill.server)

    def function(self, body, arguments="", returns="text", language="plpgsql"):
        """A SECURITY DEFINER function of the owner, which everybody may call."""
        name = unique("definer")
        self.dba_runs(f"CREATE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE {language}"
                      f" SECURITY DEFINER AS $${body.format(scene=self)}$$")
        self.dba_runs(f"ALTER FUNCTION {name} OWNER TO {self.owner}")
        return name


@pytest.fixture
def scene(either_drill, session):
    # Sessions of its own: without preloading, the call that a test is about loads the library.
    return Scene(either_drill, session)


@contextlib.contextmanager
def says_nothing(session):
    """Neither an error nor a notice that the session gets during the block holds a plaintext."""
    heard = []
    session.connection.add_notice_handler(lambda diag: heard.append(diag.message_primary))
    try:
        yield
    except psycopg.Error as error:
        assert TEXT not in f"{error} {error.diag.message_detail} {error.diag.context}"
        raise
    finally:
        assert TEXT not in str(heard)
