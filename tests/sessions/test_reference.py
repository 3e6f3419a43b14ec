"""docs/functions.md and docs/settings.md say what the catalogs say, in both directions."""

import re

import pytest

from pages import docs, one_line

FUNCTIONS, SETTINGS = docs("functions.md"), docs("settings.md")
APPLICATIONS, INTERNAL = "For applications", "Not for calling"

# Without arrays and row types, which PostgreSQL 18 lists too and go with what they belong to.
MEMBERS = """
    SELECT objid, classid::regclass::text FROM pg_depend
      JOIN pg_extension e ON refclassid = 'pg_extension'::regclass AND refobjid = e.oid
     WHERE deptype = 'e' AND extname = 'cmk_encrypt'
       AND NOT (classid = 'pg_type'::regclass AND EXISTS (
               SELECT FROM pg_type t WHERE t.oid = objid AND (t.typrelid <> 0 OR t.typcategory = 'A')))"""
# What types, operators, operator classes and casts call.
PARTS = """
    SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout, typanalyze]::oid[]) FROM pg_type
    UNION SELECT oprcode FROM pg_operator UNION SELECT amproc FROM pg_amproc UNION SELECT castfunc FROM pg_cast"""
# The functions bench_* belong to `make bench`.
ROUTINES = f"""
    SELECT n.nspname, p.proname, p.provolatile, p.proparallel, p.prosecdef, p.proisstrict, p.proretset,
           CASE WHEN p.prokind <> 'p' THEN format_type(p.prorettype, NULL) END AS result, p.proargnames, p.proargmodes::text[], p.pronargs,
           ARRAY(SELECT format_type(t, NULL) FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) t),
           ARRAY(SELECT pg_get_function_arg_default(p.oid, i) FROM generate_series(1, p.pronargs) i),
           ARRAY(SELECT CASE WHEN a.grantee = 0 THEN 'everybody' WHEN a.grantee = p.proowner THEN 'the owner'
                             ELSE '`' || a.grantee::regrole || '`' END
                   FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a ORDER BY 1 DESC)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.oid IN (SELECT objid FROM ({MEMBERS}) m WHERE classid = 'pg_proc') AND p.proname !~ '^bench_'
       AND p.oid NOT IN (SELECT * FROM ({PARTS}) parts WHERE p.pronamespace = 'pg_catalog'::regnamespace)
       AND n.nspname <> 'cmk_internal'"""
RELATIONS = f"""
    SELECT c.oid::regclass::text, c.relkind = 'v',
           ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                  ORDER BY attnum),
           ARRAY(SELECT CASE WHEN a.grantee = 0 THEN 'everybody' WHEN a.grantee = c.relowner THEN 'the owner'
                             ELSE '`' || a.grantee::regrole || '`' END
                   FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                  WHERE privilege_type = 'SELECT' ORDER BY 1 DESC)
      FROM pg_class c
     WHERE c.oid IN (SELECT objid FROM ({MEMBERS}) m WHERE classid = 'pg_class') AND c.relkind IN ('r', 'v')"""


def default(expression):
    """The server's spelling without its cast."""
    plain = re.sub(r"::[\w\[\]. ]+$", "", expression)
    return "''" if plain == r"'\x'" else plain


class Routine:
    def __init__(self, row):
        (self.schema, self.name, volatility, parallel, definer, strict, self.is_set, self.result,
         names, modes, count, types, defaults, self.callers) = row
        names, modes = names or [""] * len(types), modes or ["i"] * len(types)
        arguments = list(zip(names, modes, types, strict=True))
        self.inputs = [(name, mode, of) for name, mode, of in arguments if mode in "iv"]
        self.columns = [(name, of) for name, mode, of in arguments if mode in "ot"]
        self.defaults = defaults[:count]
        words = [{"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}[volatility]]
        words += ["STRICT"] * strict
        words += [{"s": "PARALLEL SAFE", "r": "PARALLEL RESTRICTED", "u": "PARALLEL UNSAFE"}[parallel]]
        self.kind = ", ".join(words + ["SECURITY DEFINER"] * definer)

    @property
    def written_name(self):
        return self.name if self.schema == "pg_catalog" else f"{self.schema}.{self.name}"

    def signature(self):
        inputs = [
            ("VARIADIC " if mode == "v" else "") + f"{name} {of}" + (f" DEFAULT {default(value)}" if value else "")
            for (name, mode, of), value in zip(self.inputs, self.defaults, strict=True)
        ]
        called = f"{self.written_name}({', '.join(inputs)})"
        if self.result is None:  # a procedure
            return called
        result = f"({', '.join(f'{name} {of}' for name, of in self.columns)})" if self.columns else self.result
        return f"{called} → {'SETOF ' * self.is_set}{result}"

    def stands_for(self):
        """Name and argument types of the function that this one is laid beside."""
        real = {"tenant": "text", "plaintext": {"character varying": "text"}, "ciphertext": "bytea", "aad": "bytea",
                "forgive": "text[]", "value": "text", "label": "text", "normalization": "text"}
        types = []
        for name, _, of in self.inputs:
            wanted = real[name]
            types.append((name, wanted.get(of, of) if isinstance(wanted, dict) else wanted))
        return self.name, tuple(types)


@pytest.fixture
def routines(dba):
    found = [Routine(row) for row in dba.all(ROUTINES)]
    assert len(found) > 90
    return found


def entries():
    """{heading: (signatures, text)} of the functions that the page describes."""
    found = {}
    for heading, text in FUNCTIONS.sections(3).items():
        if block := re.match(r"\n```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            signatures = re.split(r"\n(?=\S)", block[1].strip())
            found[heading] = ([one_line(signature) for signature in signatures], text)
    return found


def internal():
    return set(re.findall(r"`(cmk\.\w+)`", FUNCTIONS.sections(2)[INTERNAL])) - {"cmk.inspect", "cmk.grantee"}


def stated(text, label):
    """What stands behind a label in a list, over several lines."""
    found = re.search(rf"^- {label}: (.*?)(?=^- |^\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{label} is missing in {text}"
    return one_line(found[1])


def test_every_function_is_described_or_said_to_be_internal(routines):
    actual = {routine.written_name for routine in routines}
    assert actual - set(entries()) == internal()
    assert set(entries()) <= actual


def test_signatures_are_those_of_the_server(routines):
    described, actual = {}, {}
    for heading, (signatures, _) in entries().items():
        described[heading] = set(signatures)
        actual[heading] = {routine.signature() for routine in routines if routine.written_name == heading}
        if not heading.startswith("cmk."):
            # Of those that are laid beside one another the page has the real ones; the next test sees to the others.
            actual[heading] &= described[heading]
    assert described == actual


def test_functions_for_applications_are_laid_beside_those_of_the_page(routines):
    ours = [routine for routine in routines if routine.schema == "pg_catalog"]
    described = {signature for signatures, _ in entries().values() for signature in signatures}
    real = {routine.stands_for() for routine in ours if routine.signature() in described}
    assert {routine.stands_for() for routine in ours} == real
    assert f"in all {len(ours)} functions" in one_line(FUNCTIONS.sections(2)[APPLICATIONS])


def test_classes_and_callers_are_those_of_the_server(routines):
    actual = {
        routine.written_name: (routine.kind, readers(routine.callers))
        for routine in routines
        if routine.written_name not in internal()
    }
    described = {
        heading: (stated(text, "Class"), stated(text, "May be called by")) for heading, (_, text) in entries().items()
    }
    assert described == actual
    assert all(stated(text, "Errors") for _, text in entries().values())


def test_every_function_has_an_example():
    for heading, (_, text) in entries().items():
        examples = re.findall(r"^```sql\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        assert any(f"{heading.split('.')[-1]}(" in example for example in examples), heading


def test_tables_and_views_have_the_columns_and_readers_of_the_server(dba):
    described = {
        heading: (part, sorted(re.findall(r"`(\w+)`", stated(text, "Columns"))), stated(text, "May be read by"))
        for part in ("Views", "Tables")
        for heading, text in sections_below(part).items()
    }
    actual = {
        name: ("Views" if is_view else "Tables", sorted(columns), readers(who))
        for name, is_view, columns, who in dba.all(RELATIONS)
    }
    assert described == actual


def test_every_problem_that_the_check_looks_for_is_named(dba):
    source = dba.one("SELECT prosrc FROM pg_proc WHERE oid = 'cmk.check'::regproc")
    found = re.findall(
        r"^ *SELECT '(\w+)'|^ *\('(column_\w+)', '\w+',|\bTHEN '(\w+)' ELSE '(\w+)' END, NULL", source, re.MULTILINE)
    listed = re.findall(r"`(\w+)`", one_line(entries()["cmk.check"][1].split("What it looks for:")[1].split("```")[0]))
    assert sorted(listed) == sorted({name for names in found for name in names if name})


def readers(names):
    return "everybody" if "everybody" in names else ", ".join(names)


def sections_below(part):
    text = FUNCTIONS.sections(2)[part]
    return dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", text, re.DOTALL | re.MULTILINE))


def test_types_triggers_and_everything_else_is_named(dba):
    types = dba.all(f"SELECT objid::regtype::text FROM ({MEMBERS}) m WHERE classid = 'pg_type'")
    assert sorted(heading for heading in FUNCTIONS.headings() if heading.startswith("The type ")) == sorted(
        f"The type {name}" for (name,) in types
    )
    page = one_line(FUNCTIONS.text)
    assert "It casts to `oid` (implicitly) and to `regrole` (in assignments)" in page
    triggers = dba.all(
        "SELECT DISTINCT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
        " WHERE relnamespace = 'cmk'::regnamespace AND NOT tgisinternal"
    )
    names = re.search(r"The triggers on the tables are called (.*?), the event trigger `(\w+)`", page)
    assert sorted(re.findall(r"`(\w+)`", names[1])) == sorted(name for (name,) in triggers)
    assert dba.all("SELECT evtname FROM pg_event_trigger") == [(names[2],)]
    kinds = {kind for (kind,) in dba.all(f"SELECT DISTINCT classid FROM ({MEMBERS}) m")}
    assert kinds <= {"pg_proc", "pg_class", "pg_type", "pg_cast", "pg_event_trigger", "pg_namespace", "pg_operator",
                     "pg_opclass", "pg_opfamily"}


def test_casts_are_those_of_the_server(dba):
    contexts = {"i": "implicitly", "a": "in assignments"}
    actual = {
        (source, target, contexts[context])
        for source, target, context in dba.all(
            "SELECT format_type(castsource, NULL), format_type(casttarget, NULL), castcontext::text FROM pg_cast"
            f" WHERE oid IN (SELECT objid FROM ({MEMBERS}) m WHERE classid = 'pg_cast')"
        )
    }
    described = {
        (source, target, context)
        for casts, context in re.findall(r"^\| (`[^|]+→[^|]+) \| ([\w ]+) \|", FUNCTIONS.text, re.MULTILINE)
        for source, target in re.findall(r"`([\w ]+)` → `([\w ]+)`", casts)
    }
    of_grantee = {("cmk.grantee", "oid", "implicitly"), ("cmk.grantee", "regrole", "in assignments")}
    assert described | of_grantee == actual


def test_operators_and_operator_classes_are_named(dba):
    named = set(re.findall(r"`([^`]+)`", FUNCTIONS.sections(3)["Operators"]))
    operators = dba.all(
        f"SELECT DISTINCT oprname::text FROM pg_operator"
        f" WHERE oid IN (SELECT objid FROM ({MEMBERS}) m WHERE classid = 'pg_operator')"
    )
    classes = dba.all(
        "SELECT opcname::text FROM pg_opclass"
        f" WHERE oid IN (SELECT objid FROM ({MEMBERS}) m WHERE classid = 'pg_opclass')"
    )
    assert {name for (name,) in operators + classes} <= named
    assert {name for name in named if name.endswith("_ops")} == {name for (name,) in classes}


STATED = re.compile(
    r"Default (?P<value>`[^`]+`|empty)(?: · range `(?P<least>\S+)` to `(?P<most>\S+)`)?(?: · (?P<others>one of .+?))?"
    r" · takes effect (?P<when>on reload|on restart|at once)"
)


def milliseconds(dba, figure):
    """A time in the server's unit; anything else as it is."""
    if not re.fullmatch(r"\d+(ms|s|min|h|d)", figure):
        return figure
    return dba.one("SELECT round(extract(epoch FROM %s::interval) * 1000)::text || ' ms'", figure)


def test_settings_have_the_defaults_units_and_ranges_of_the_server(drill):
    """Of a preloaded server: elsewhere the setting that takes a restart can be changed, and does nothing."""
    ours = drill.dba.all(
        "SELECT name, vartype, unit, boot_val, min_val, max_val, enumvals, context FROM pg_settings"
        " WHERE name LIKE 'cmk\\_encrypt.%'"
    )
    sections = {name: text for name, text in SETTINGS.sections(3).items()}
    described, actual = {}, {}
    for name, text in sections.items():
        written = STATED.fullmatch(text.strip().split("\n\n")[0])
        assert written, name
        figures = [written["value"].strip("`"), written["least"], written["most"]]
        others = sorted(re.findall(r"`(\w+)`", written["others"] or ""))
        figures = [figure and milliseconds(drill.dba, figure) for figure in figures]
        described[name] = (written["when"], others, *figures)
    for name, kind, unit, value, least, most, choice, context in ours:
        assert unit in (None, "ms", "s") and (unit is None or kind == "integer"), name
        figures = [value or "empty", least, most]
        actual[name] = (
            {"sighup": "on reload", "postmaster": "on restart", "user": "at once"}[context],
            sorted(choice or []),
            *(f"{int(figure) * {'ms': 1, 's': 1000}[unit]} ms" if unit and figure else figure for figure in figures),
        )
    assert described == actual


def test_every_setting_says_what_it_does():
    for name, text in SETTINGS.sections(3).items():
        assert len(text.strip().split("\n\n")) >= 2, name
