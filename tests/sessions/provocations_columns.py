"""Ways to the errors of protected columns, added to those of provocations_keys.py."""

from provocations import provokes
from provocations_keys import ALL
from support import unique

__all__ = ["ALL"]


def make(stage, type_name="text"):
    """A table with plaintext of a new tenant, open to the application."""
    if stage.tenant is None:
        stage.use("local:shared")
    table = unique("person")
    stage.dba.run(f"CREATE TABLE {table} (tenant text, ssn {type_name})")
    stage.dba.run(f"GRANT SELECT, INSERT ON {table} TO {stage.app.role}")
    return table


def protect(stage, type_name="text", tenant_column="tenant"):
    table = make(stage, type_name)
    stage.dba.run("SELECT cmk.protect_column(%s::regclass, 'ssn', tenant_column => %s)", table, tenant_column)
    return table


def insert(session, table, tenant, value):
    session.run(f"INSERT INTO {table} VALUES (%s, %s)", tenant and str(tenant), value)


def armored(stage, table):
    """A value as a session reads it that did not ask for plaintext."""
    insert(stage.app, table, stage.tenant, "536-90-4399")
    return stage.app.one(f"SELECT concat(ssn) FROM {table}")


# What is stored


@provokes("already_sealed", "22023")
def already_sealed(stage):
    stage.app.encrypt(stage.use("local:shared"), stage.app.encrypt(stage.tenant))


@provokes("not_sealed", "23514", names_tenant=False)
def not_sealed(stage):
    table = protect(stage)
    stage.dba.run(f'ALTER TABLE {table} DISABLE TRIGGER "~cmk_seal"')
    insert(stage.app, table, stage.tenant, "536-90-4399")


@provokes("foreign_envelope", "23514", names_tenant=False)
def foreign_envelope(stage):
    source, target = protect(stage), protect(stage)
    insert(stage.app, source, stage.tenant, "536-90-4399")
    replica = stage.session()
    replica.run("SET session_replication_role = replica")
    replica.run(f"INSERT INTO {target} SELECT * FROM {source}")


@provokes("protection_lost", "55000", names_tenant=False)
def protection_lost(stage):
    table = protect(stage)
    stage.dba.run(f"ALTER TABLE {table} DROP CONSTRAINT cmk_sealed_ssn")
    insert(stage.app, table, stage.tenant, "536-90-4399")


@provokes("tenant_unset", "55000", names_tenant=False)
def tenant_unset(stage):
    insert(stage.app, protect(stage, tenant_column=None), stage.use("local:shared"), "536-90-4399")


@provokes("tenant_null", "23502", names_tenant=False)
def tenant_null(stage):
    insert(stage.app, protect(stage), None, "536-90-4399")


@provokes("too_long", "22001", names_tenant=False)
def too_long(stage):
    table = protect(stage, "varchar(10)")
    insert(stage.app, table, stage.tenant, "536-90-4399")


# Armor


@provokes("armor_refused", "42501", names_tenant=False)
def armor_refused(stage):
    table = protect(stage)
    insert(stage.app, table, stage.tenant, armored(stage, table))


@provokes("armor_malformed", "22P02", names_tenant=False)
def armor_malformed(stage):
    table = protect(stage)
    cut = armored(stage, table)[:-1]
    stage.app.run("SET cmk_encrypt.input = envelope")
    stage.app.run(f"INSERT INTO {table} VALUES (%s, '{cut}')", str(stage.tenant))


# Definitions


@provokes("index_refused", "42809", names_tenant=False)
def index_refused(stage):
    stage.dba.run(f"CREATE INDEX ON {protect(stage)} (ssn)")


@provokes("not_protectable", "42809", names_tenant=False)
def not_protectable(stage):
    table = make(stage)
    stage.dba.run(f"CREATE INDEX ON {table} (ssn)")
    stage.dba.run(f"SELECT cmk.protect_column('{table}', 'ssn', tenant_column => 'tenant')")


@provokes("not_owner", "42501", names_tenant=False)
def not_owner(stage):
    stage.app.run(f"SELECT cmk.seal_batch('{protect(stage)}'::regclass, 2::int2, 0, 1, '{{}}')")


@provokes("not_protected", "42704", names_tenant=False)
def not_protected(stage):
    stage.dba.run(f"SELECT cmk.unprotect_column('{make(stage)}', 'ssn')")


# Re-encryption, and the end of old data keys


@provokes("not_reencryptable", "42809", names_tenant=False)
def not_reencryptable(stage):
    stage.dba.run("CALL cmk.reencrypt('cmk.tenants', 'tenant')")


@provokes("pause", "22023", names_tenant=False)
def pause(stage):
    stage.dba.run("CALL cmk.seal_table('pg_class', pause => 'infinity')")


@provokes("reencrypt_running", "55P03", names_tenant=False)
def reencrypt_running(stage):
    table = unique("sealed")
    stage.dba.run(f"CREATE TABLE {table} (c bytea)")
    begin = f"SELECT cmk_internal.reencrypt_begin('{table}'::regclass, 1::int2)"
    try:
        stage.session().run(begin)
        stage.dba.run(begin)
    finally:
        stage.dba.run(f"DROP TABLE {table}")


@provokes("retirement_unchecked", "22023")
def retirement_unchecked(stage):
    stage.use()
    stage.manage("retire_keys")


@provokes("retirement_blocked", "55000")
def retirement_blocked(stage):
    stage.use()
    with stage.dba.connection.transaction():
        stage.manage("rotate_tenant")
        stage.dba.run("SELECT cmk.retire_keys(%s, also_checked => 'everything')", stage.tenant.name)
