"""What tests of search share: tenants with index keys, searchable tables and their twins, what a plan does, and
tokens made without the extension."""

import contextlib
import hashlib
import hmac

import pytest

from columns import World, tags
from local_key import read_local_key, unwrap_local

MANY = 20_000
# Of `fill_many`: the ids of 'value K' at acme and at bolt
ACME, BOLT = (lambda k: 2 * k), (lambda k: 2 * k + 1)

# What leaves the planner one way to scan a table.
SCANS = {
    "seq scan": ("Seq Scan", ["enable_indexscan", "enable_bitmapscan", "enable_indexonlyscan"]),
    "index scan": ("Index Scan", ["enable_seqscan", "enable_bitmapscan"]),
    "bitmap scan": ("Bitmap Heap Scan", ["enable_seqscan", "enable_indexscan", "enable_indexonlyscan"]),
}


class SearchWorld(World):
    """A world whose tenants have index keys, but `late`, which is suspended, too, and was when they were made.

    `bright()` is when the key of `dark` works. Sessions load the library when they begin, as docs/columns.md
    recommends: the first list of a session could not use an index otherwise."""

    def _register(self):
        super()._register()
        self.dba.run(f"ALTER DATABASE {self.dbname} SET session_preload_libraries = cmk_encrypt")
        # The costs of forbidden plans would start it.
        self.dba.run(f"ALTER DATABASE {self.dbname} SET jit = off")
        self.dba.run("SELECT cmk.register_tenant('late', 'local:shared'), cmk.suspend_tenant('late')")
        for role in (self.roles["app"], "postgres"):
            self.dba.run("SELECT cmk.grant_access('late', %s)", role)
        with self.bright():
            for tenant in ("acme", "bolt", "dark"):
                self.dba.run("SELECT cmk.rotate_index_key(%s)", tenant)

    @contextlib.contextmanager
    def bright(self):
        self.kms.state(self.dark_key, "Enabled")
        self.dba.run("SELECT cmk.evict('dark')")
        try:
            yield
        finally:
            self.kms.state(self.dark_key, "Disabled")
            self.dba.run("SELECT cmk.evict('dark')")

    def tenant(self, name, *roles, key="local:shared"):
        """A new tenant, which has an index key, and which these roles of ours may use, as the superuser may."""
        self.dba.run("SELECT cmk.register_tenant(%s, %s)", name, key)
        for role in (*(self.roles[role] for role in roles), "postgres"):
            self.dba.run("SELECT cmk.grant_access(%s, %s)", name, role)
        if not self.dba.one("SELECT count(*) FROM cmk.data_key WHERE tenant = %s AND purpose = 'index'", name):
            self.dba.run("SELECT cmk.rotate_index_key(%s)", name)
        return name

    def searchable(self, name, rows=(), index="{name} (ssn cmk_token_ops)", **options):
        """A table whose ssn is searchable, with its token index NAME_ssn, and its twin of text, NAME_text."""
        options = {"columns": ("ssn",), "searchable": True, **options}
        self.twins(name, rows, **options)
        drop_indexes(self.dba, name)  # what protect_column has made
        unique, on = ("UNIQUE ", index.removeprefix("UNIQUE ")) if index.startswith("UNIQUE ") else ("", index)
        self.dba.run(f"CREATE {unique}INDEX {name}_ssn ON {on.format(name=name)}")
        plain = on.format(name=f"{name}_text").replace(" cmk_token_ops", "")
        self.dba.run(f"CREATE INDEX {name}_text_ssn ON {plain}")
        return name

    def many(self, name, **options):
        """The same with many rows: 'value K' once for acme and once for bolt; and one of `dark`, id -1."""
        self.searchable(name, **options)
        for table in (name, f"{name}_text"):
            with self.bright():
                self.dba.run(
                    f"INSERT INTO {table} SELECT n, (ARRAY['acme', 'bolt'])[1 + n % 2], 'value ' || n / 2, 'note ' || n"
                    f" FROM generate_series(1, {MANY}) n"
                )
                self.dba.run(f"INSERT INTO {table} VALUES (-1, 'dark', 'value 7', 'dark')")
            self.dba.run(f"VACUUM ANALYZE {table}")
        return name


@pytest.fixture(scope="module")
def world(server, kms_process):
    world = SearchWorld(server, kms_process)
    yield world
    world.close()


def drop_indexes(dba, table):
    """All but the primary key."""
    for (index,) in dba.all("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass"
                            " AND NOT indisprimary", table):
        dba.run(f"DROP INDEX {index}")


# Plans


def nodes(session, sql, *params):
    """The nodes of a statement's plan, without running it."""
    def below(node):
        return [node, *(found for child in node.get("Plans", []) for found in below(child))]

    return below(session.one(f"EXPLAIN (FORMAT JSON) {sql}", *params)[0]["Plan"])


def conditions(plan):
    """The index conditions that look for tokens."""
    return [node["Index Cond"] for node in plan if "===" in node.get("Index Cond", "")]


def by_index(session, sql, *params):
    """The statement looks for tokens in indexes, and reads no table from end to end; its index conditions."""
    plan = nodes(session, sql, *params)
    found = conditions(plan)
    assert found and "Seq Scan" not in [node["Node Type"] for node in plan], plan
    return found


@contextlib.contextmanager
def scanning(session, kind):
    """In the block the planner scans tables in this one way."""
    _, forbidden = SCANS[kind]
    for setting in forbidden:
        session.run(f"SET {setting} = off")
    try:
        yield
    finally:
        for setting in forbidden:
            session.run(f"RESET {setting}")


def ids(session, sql, *params):
    return sorted(id for (id,) in session.all(sql, *params))


# The format of tokens, as docs/envelope.md has it


def tokens(envelope):
    """[(index key's id, token)] of an envelope, the current key's first."""
    count = {2: 0, 3: 1, 4: 2}[envelope[1] & 0x0F]
    found = [envelope[34 + 20 * n : 54 + 20 * n] for n in range(count)]
    return [(token[:4], token[4:]) for token in found]


def token(index_key, label, value):
    """What stands in an envelope for a value, which the caller has normalized."""
    message = b"cmk_encrypt/v1/token" + tags("", label)[8:] + value.encode()
    return hmac.new(index_key, message, hashlib.sha256).digest()[:16]


def shortened(whole, bits):
    """Of a token its first bits, and in the last byte their number."""
    kept = int.from_bytes(whole, "big") >> 128 - bits << 128 - bits
    return kept.to_bytes(16, "big")[:15] + bytes([bits])


def index_keys(dba, tenant, *states):
    """{state: id} of the tenant's index keys; of those states only, if given."""
    rows = dba.all("SELECT state, substr(dek_id, 1, 4) FROM cmk.data_key WHERE tenant = %s AND purpose = 'index'"
                   " ORDER BY version", tenant)
    return {state: id for state, id in rows if not states or state in states}


def index_key(world, tenant, state="current"):
    """The raw key, unwrapped by the published format alone."""
    uri, wrapped = world.dba.row(
        "SELECT t.key_uri, k.wrapped FROM cmk.tenant t JOIN cmk.data_key k USING (tenant)"
        " WHERE tenant = %s AND purpose = 'index' AND k.state = %s", tenant, state,
    )
    return unwrap_local(read_local_key(world.server.keys, uri), tenant, wrapped, "index")
