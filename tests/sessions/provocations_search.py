"""Ways to the errors of searchable columns, added to those of provocations_columns.py.

Each is in a database of its own: where a column is searchable, every new tenant gets an index key as well."""

from provocations import provokes
from provocations_columns import ALL

__all__ = ["ALL"]


def searchable(stage, *tables, label=None):
    """A superuser's session in a new database with the tenant `a` and such tables, of which each has a row."""
    dba = stage.session(dbname=stage.database())
    stage.tenant = "a"
    dba.run("SELECT cmk.register_tenant('a', 'local:shared'), cmk.grant_access('a', 'postgres')")
    for table in tables:
        dba.run(f"CREATE TABLE {table} (tenant text, ssn text)")
        dba.run(f"SELECT cmk.protect_column('{table}', 'ssn', tenant_column => 'tenant', label => %s,"
                " searchable => true)", label)
        dba.run(f"INSERT INTO {table} VALUES ('a', '536-90-4399')")
        dba.run(f"CREATE UNIQUE INDEX ON {table} (ssn cmk_token_ops)")
    return dba


@provokes("no_index_key", "55000")
def no_index_key(stage):
    dba = searchable(stage)
    dba.run("SELECT cmk.suspend_tenant('a')")
    dba.run("CREATE TABLE person (tenant text, ssn text)")
    dba.run("SELECT cmk.protect_column('person', 'ssn', tenant_column => 'tenant', searchable => true)")
    dba.run("SELECT cmk.resume_tenant('a')")
    dba.run("INSERT INTO person VALUES ('a', '536-90-4399')")


@provokes("not_searchable", "42809", names_tenant=False)
def not_searchable(stage):
    dba = searchable(stage, "person")
    dba.run("CREATE TABLE other (tenant text, ssn text)")
    dba.run("SELECT cmk.protect_column('other', 'ssn', tenant_column => 'tenant')")
    dba.run("INSERT INTO other VALUES ('a', '536-90-4399')")
    dba.run("CREATE INDEX ON other (ssn cmk_token_ops)")


@provokes("token_missing", "23514", names_tenant=False)
def token_missing(stage):
    dba = searchable(stage, "person")
    dba.run("SET session_replication_role = replica")
    dba.run("INSERT INTO person SELECT 'a', cmk.seal_value('536-90-4399'::text, 'a', 'person.ssn')")


@provokes("column_options", "22023", names_tenant=False)
def column_options(stage):
    dba = searchable(stage, "person")
    dba.run("SELECT cmk.sealed(ssn, 'person.ssn', 'a', 'search,whatever') FROM person")


@provokes("too_many_tenants", "22023", names_tenant=False)
def too_many_tenants(stage):
    dba = searchable(stage, "person")
    for number in range(64):
        dba.run("SELECT cmk.register_tenant(%s, 'local:shared')", f"b{number}")
    dba.run("SELECT cmk.grant_access('*', 'postgres')")
    dba.run("SET enable_seqscan = off")
    dba.all("SELECT FROM person WHERE ssn = '536-90-4399'")


@provokes("index_rotation_open", "55000")
def index_rotation_open(stage):
    dba = searchable(stage, "person")
    for _ in range(2):
        dba.run("SELECT cmk.rotate_index_key('a')")


@provokes("index_rotation_refused", "42809")
def index_rotation_refused(stage):
    dba = searchable(stage, "person", "child", label="person.ssn")
    dba.run("ALTER TABLE child ADD FOREIGN KEY (ssn) REFERENCES person (ssn)")
    dba.run("SELECT cmk.rotate_index_key('a')")


@provokes("index_key_replaced", "55000")
def index_key_replaced(stage):
    """A cursor is planned for the one key that there is, and reads when there are two."""
    dba = searchable(stage, "person")
    dba.run("SET enable_seqscan = off")
    dba.run("BEGIN")
    dba.run("DECLARE c CURSOR FOR SELECT FROM person WHERE tenant = 'a' AND ssn = '536-90-4399'")
    stage.session(dbname=dba.connection.info.dbname).run("SELECT cmk.rotate_index_key('a')")
    dba.run("FETCH ALL FROM c")
