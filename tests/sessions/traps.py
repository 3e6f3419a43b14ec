"""What the owner of a database can lay so that somebody else's call runs their code.

A trap is an object of an ordinary role beside those of pg_catalog: an operator or a function whose
argument types match a call better, or a type or view whose name is found first.
"""

import contextlib
import os
import re
import subprocess
from itertools import product
from pathlib import Path

# Columns of catalogs and of the registry have these types. What else may stand for an argument of
# pg_catalog's functions and operators, its casts say.
TYPES = (
    'text varchar name bpchar "char" bytea bool int2 int4 int8 oid xid regclass regnamespace'
    " regproc regprocedure regtype regrole aclitem timestamptz interval numeric float8 uuid json"
    " jsonb"
).split()

ACCEPTED = """
    SELECT oid::regtype::text, oid::regtype::text FROM pg_type WHERE typtype = 'b'
    UNION SELECT casttarget::regtype::text, castsource::regtype::text FROM pg_cast
           WHERE castcontext = 'i'
    UNION SELECT wanted, typarray::regtype::text FROM pg_type,
                 unnest('{anyarray, anycompatiblearray}'::text[]) wanted
           WHERE oid = ANY (%(types)s::regtype[])
    UNION SELECT wanted, oid::regtype::text FROM pg_type,
                 unnest('{"\\"any\\"", anyelement, anynonarray, anycompatible,
                          anycompatiblenonarray}'::text[]) wanted
           WHERE oid = ANY (%(types)s::regtype[])
"""
OPERATORS = """
    SELECT oprname, CASE oprleft WHEN 0 THEN '' ELSE oprleft::regtype::text END,
           oprright::regtype::text, oprresult::regtype::text
      FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace ORDER BY oid
"""
FUNCTIONS = """
    SELECT proname, ARRAY(SELECT t::regtype::text FROM unnest(proargtypes) t), proargmodes IS NULL,
           proargnames, pronargdefaults, provariadic <> 0, prorettype::regtype::text
      FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%(words)s)
       AND prokind <> 'p' AND proname NOT LIKE 'cmk\\_%%' ORDER BY oid
"""
RELATIONS = """
    SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
       AND relname = ANY (%(words)s) AND relkind IN ('r', 'v')
       -- A view can't have the columns of pg_statistic.
       AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid
                          AND atttypid = 'anyarray'::regtype)
"""
PSEUDOTYPES = "SELECT oid::regtype::text FROM pg_type WHERE typtype = 'p' AND typname <> 'void'"

# A trap tells of itself in the log too, which no rollback takes back.
FOUNDATION = """
    CREATE TABLE public.trapped (who text, stack text);
    GRANT INSERT ON public.trapped TO PUBLIC;
    CREATE FUNCTION public.sprung() RETURNS bool LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE
        stack text;
    BEGIN
        GET DIAGNOSTICS stack = PG_CONTEXT;
        RAISE LOG 'trap sprung by %: %', current_user, stack;
        BEGIN
            ALTER ROLE mallory SUPERUSER;
        EXCEPTION WHEN insufficient_privilege THEN
        END;
        INSERT INTO public.trapped VALUES (current_user, stack);
        RETURN true;
    END $$;
    CREATE SCHEMA evil;
    GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE TYPE public.bait AS ENUM ('');
    SET check_function_bodies = off;
"""


def extension_file(name):
    """A file of the extension where the private PostgreSQL looks for it."""
    ask = [os.environ["PG_CONFIG"], "--sharedir"]
    share = subprocess.run(ask, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Path(share, "extension", name)


def default_version():
    control = extension_file("cmk_encrypt.control").read_text()
    return re.search(r"default_version = '(.+)'", control)[1]


def install_script():
    return extension_file(f"cmk_encrypt--{default_version()}.sql").read_text()


class Traps:
    """Traps for all operators there are and for whatever else the install script mentions.

    Schema public gets the better matches. Schema evil gets copies of what pg_catalog has, for a
    search_path that names it first.
    """

    def __init__(self, catalog):
        words = sorted(set(re.findall(r"\w+", install_script().lower())))

        def rows(query):
            return catalog.execute(query, {"types": TYPES, "words": words}).fetchall()

        self.accepted = {"": [""]}
        for wanted, given in rows(ACCEPTED):
            self.accepted.setdefault(wanted, []).append(given)
        self.pseudotypes = {name for (name,) in rows(PSEUDOTYPES)}
        self.bodies, self.statements = {}, []
        self.operators = self._operators(rows(OPERATORS))
        self.functions = self._functions(rows(FUNCTIONS))
        self._casts()
        for name in sorted({*TYPES} & {*words, '"char"'}):
            self.statements.append(
                f"CREATE DOMAIN evil.{name} AS pg_catalog.{name} CHECK (public.sprung())"
            )
        for (name,) in rows(RELATIONS):
            self.statements.append(
                f"CREATE VIEW evil.{name} AS SELECT * FROM pg_catalog.{name} WHERE public.sprung()"
            )

    def lay(self, mallory):
        mallory.execute(FOUNDATION)
        mallory.execute(";".join(self.statements))

    def _operators(self, rows):
        exact = {(name, left, right) for name, left, right, _ in rows}
        made = {}
        for name, left, right, result in rows:
            for given in product(self.accepted.get(left, ()), self.accepted.get(right, ())):
                alike = given[0] == given[1] or "anyarray" not in (left, right)
                if alike and (name, *given) not in made:
                    made[name, *given] = result
        for (name, left, right), result in made.items():
            if result in self.pseudotypes:
                result = left if left.endswith("[]") else right
            schema = "evil" if (name, left, right) in exact else "public"
            body = self._body(result, *([left, right] if left else [right]))
            leftarg = f"LEFTARG = {left}, " if left else ""
            self.statements.append(
                f"CREATE OPERATOR {schema}.{name} ({leftarg}RIGHTARG = {right}, FUNCTION = {body})"
            )
        return made

    def _body(self, result, *types):
        """The name of the function of a trap, made when first asked for."""
        key = (result, *types)
        if key not in self.bodies:
            self.bodies[key] = f"public.trap{len(self.bodies)}"
            self._function(self.bodies[key], types, result)
        return self.bodies[key]

    def _function(self, name, arguments, result):
        answer = "" if result == "void" else "RETURN NULL; "
        self.statements.append(
            f"CREATE FUNCTION {name}({', '.join(arguments)}) RETURNS {result} LANGUAGE plpgsql"
            f" AS $$ BEGIN PERFORM public.sprung(); {answer}END $$"
        )

    def _functions(self, rows):
        exact = {(name, *types) for name, types, *_ in rows}
        made = set()
        for name, types, inputs_only, names, defaults, variadic, result in rows:
            result = "text" if result in self.pseudotypes else result
            for given in self._signatures(types, variadic):
                if (name, *given) in made or self.pseudotypes & {*given}:
                    continue
                made.add((name, *given))
                schema = "evil" if (name, *given) in exact else "public"
                arguments = given
                if not variadic:
                    named = names if names and inputs_only else [""] * len(given)
                    required = len(given) - defaults
                    arguments = [
                        f"{name} {type_}{'' if i < required else ' DEFAULT NULL'}"
                        for i, (name, type_) in enumerate(zip(named, given))
                    ]
                self._function(f'{schema}."{name}"', arguments, result)
        return made

    def _signatures(self, types, variadic):
        """A call's types: with one argument, or all of them, of another type that is accepted."""
        yield types
        yield ["text"] * len(types)
        if variadic:
            for count, type_ in product(range(1, 4), TYPES):
                yield [*types[:-1], *[type_] * count]
            return
        for i, wanted in enumerate(types):
            for given in (*self.accepted.get(wanted, ()), "text"):  # text: for a literal
                yield [*types[:i], given, *types[i + 1:]]

    def _casts(self):
        """Between a type of their own and any other a role may make casts."""
        for type_ in TYPES:
            for source, target in ((type_, "public.bait"), ("public.bait", type_)):
                body = self._body(target, source)
                self.statements.append(
                    f"CREATE CAST ({source} AS {target})"
                    f" WITH FUNCTION {body}({source}) AS IMPLICIT"
                )


@contextlib.contextmanager
def springs_none(server, dbname):
    """The block springs no trap of this database."""
    before = server.log.stat().st_size
    try:
        yield
    finally:
        said = server.log.read_bytes()[before:].decode()
        sprung = re.findall("trap sprung .*(?:\n\t.*)*", said)
        assert not sprung, sprung
    assert not became_superuser(server)
    with server.connect(dbname, "mallory") as mallory:
        trapped = mallory.execute("TABLE public.trapped").fetchall()
        assert not trapped, trapped


def became_superuser(server):
    return server.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == [(True,)]
