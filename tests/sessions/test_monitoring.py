"""docs/monitoring: the exporter's metrics, the alert rules, the dashboard, on a server whose tenants' keys fail.

With Debian's prometheus-postgres-exporter, prometheus and promtool, which scripts/setup.sh unpacks beside the build.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from pages import Page
from server import ROOT, until
from support import Session, fails, fails_with
from watched import Watched, running

MONITORING, RUNBOOKS = ROOT / "docs" / "monitoring", ROOT / "docs" / "runbooks"
README = Page(MONITORING / "README.md")
QUERIES = yaml.safe_load((MONITORING / "queries.yaml").read_text())
[GROUP] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text())
METRICS = {
    f"{name}_{column}": kind["usage"]
    for name, query in QUERIES.items() for metric in query["metrics"] for column, kind in metric.items()
    if kind["usage"] != "LABEL"
}


def tool(name):
    """Where scripts/setup.sh unpacked it, or wherever the system has it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    unpacked = target / "tools" / "monitoring" / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    assert found, f"{name} is missing: scripts/setup.sh test"
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(log, *command, **environment):
    with log.open("w") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, env={"PATH": os.environ["PATH"], **environment})
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=10)


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Monitored(Watched):
    """A watched server, an exporter that asks it as the documentation says, and Prometheus that asks the exporter."""

    def __init__(self, server, kms, exporter_port, prometheus_port):
        super().__init__(server, kms)
        self.exporter, self.prometheus = (f"http://127.0.0.1:{port}" for port in (exporter_port, prometheus_port))

    def metrics(self):
        """{(name, frozenset of labels): value} of ours."""
        found = {}
        for line in fetch(f"{self.exporter}/metrics").splitlines():
            if line.startswith("cmk_encrypt_"):
                name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
                labels.pop("server")
                found[name, frozenset(labels.items())] = float(value)
        return found

    def metric(self, name, **labels):
        """The value of the one series of that name with these labels among its own; None: there is none."""
        values = [value for (found, has), value in self.metrics().items() if found == name and labels.items() <= set(has)]
        assert len(values) <= 1, (name, labels)
        return values[0] if values else None

    def firing(self):
        """{(alert, tenant or None)} that Prometheus raises."""
        alerts = json.loads(fetch(f"{self.prometheus}/api/v1/alerts"))["data"]["alerts"]
        return {(it["labels"]["alertname"], it["labels"].get("tenant")): it for it in alerts if it["state"] == "firing"}


@pytest.fixture(scope="module")
def monitored_server(make_server, kms_process, tmp_path_factory):
    with running(make_server, monitor_databases="postgres", promised_bound="1min") as server:
        ports, dir = (free_port(), free_port()), tmp_path_factory.mktemp("monitoring")
        made = Monitored(server, kms_process, *ports)
        for block in README.sql():
            for step in block:
                made.dba.run(step.sql)
        config = dir / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "alerts.yml")],
            "scrape_configs": [{"job_name": "cmk_encrypt", "static_configs": [{"targets": [f"127.0.0.1:{ports[0]}"]}]}],
        }))
        exporter = (
            tool("prometheus-postgres-exporter"), f"--extend.query-path={MONITORING / 'queries.yaml'}",
            *re.findall(r"--[\w.-]+", README.text.split("--extend.query-path")[1].split("```")[0]),
            f"--web.listen-address=127.0.0.1:{ports[0]}",
        )
        source = f"user=cmk_exporter host={server.socket} dbname=postgres sslmode=disable"
        prometheus = (
            tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={dir / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports[1]}",
        )
        with process(dir / "exporter.log", *exporter, DATA_SOURCE_NAME=source), process(dir / "prometheus.log", *prometheus):
            def is_up():
                with contextlib.suppress(OSError, urllib.error.URLError):
                    return made.metrics() and made.firing() is not None

            until(is_up, 15, "the exporter and Prometheus")
            yield made


@pytest.fixture
def monitored(monitored_server, kms):
    return monitored_server


# A real server


def test_a_disabled_key_shows_in_the_metrics_and_raises_the_alert_until_it_is_enabled(monitored, kms):
    tenant, other = monitored.tenant(), monitored.tenant()
    monitored.checks(tenant, 1)
    monitored.checks(other, 1)
    dark = lambda: monitored.metric("cmk_encrypt_tenant_dark_seconds", tenant=tenant.name)  # noqa: E731
    counted = lambda state: monitored.metric("cmk_encrypt_tenants_count", tenant_state="active", key_state=state)  # noqa: E731
    assert dark() is None
    before = counted("usable")
    kms.state(tenant.key_uri, "Disabled")
    until(dark, what="the metric")
    labels = {"tenant": tenant.name, "key_state": "revoked", "reason": "key_disabled", "datname": "postgres"}
    assert monitored.metric("cmk_encrypt_tenant_dark_seconds", **labels) > 0
    assert (counted("usable"), counted("revoked")) == (before - 1, 1)
    alert = until(lambda: monitored.firing().get(("CmkKeyRevoked", tenant.name)), what="the alert")
    assert alert["annotations"]["summary"] == f"The key of tenant {tenant.name} is revoked (key_disabled)"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/key-revoked.md"
    # Nobody else is called, and nothing else is amiss.
    assert set(monitored.firing()) == {("CmkKeyRevoked", tenant.name)}
    kms.state(tenant.key_uri, "Enabled")
    until(lambda: not monitored.firing(), 15, "the end of the alert")
    assert dark() is None and counted("usable") == before


def test_each_metric_has_a_value_on_a_server_that_is_well(monitored):
    tenant = monitored.tenant()
    until(lambda: monitored.status(tenant, "warnings") == ([],), what="a look at the key")
    missing = {name for name in METRICS if not any(found == name for found, _ in monitored.metrics())}
    assert missing == {name for name in METRICS if name.startswith(("cmk_encrypt_tenant_", "cmk_encrypt_check_"))}
    value = lambda name: monitored.metric(f"cmk_encrypt_server_{name}")  # noqa: E731
    flags = ("preloaded", "keyring_worker", "monitor_configured", "watched")
    assert {name: value(name) for name in flags} == dict.fromkeys(flags, 1)
    assert (value("cache_ttl_seconds"), value("promised_bound_seconds")) == (20, 60)
    assert value("kms_calls_total") > 0


def test_a_finding_is_counted(monitored):
    monitored.dba.run("ALTER EVENT TRIGGER cmk_drop_guard ENABLE")
    try:
        # The exporter keeps the answer for a minute: so it is asked as it asks.
        with monitored.server.connect(user="cmk_exporter") as connection:
            found = connection.execute(QUERIES["cmk_encrypt_check"]["query"]).fetchall()
    finally:
        monitored.dba.run("ALTER EVENT TRIGGER cmk_drop_guard ENABLE ALWAYS")
    assert found == [("postgres", "drop_guard_off", 1)]


def test_the_exporters_role_reads_no_table_and_opens_nothing(monitored):
    tenant = monitored.tenant()
    envelope = monitored.dba.encrypt(tenant)
    relations = "SELECT relname::text FROM pg_class WHERE relnamespace = 'cmk'::regnamespace AND relkind IN ('r', 'v')"
    with monitored.server.connect(user="cmk_exporter") as connection:
        user = Session(connection)
        readable = "AND has_table_privilege(oid, 'SELECT')"
        assert {name for name, in user.all(f"{relations} {readable}")} == {
            # Of the last three, nobody sees more than of their own tables.
            "server", "status", "protected_columns", "reencrypt_progress", "reencrypt_failures"}
        for table in ("tenant", "data_key", "access", "home", "key_event"):
            with fails_with("42501"):
                user.run(f"TABLE cmk.{table}")
        with fails("42501", "no_grant", tenant):
            user.decrypt(tenant, envelope)
        seen = str([user.all(query["query"]) for query in QUERIES.values()])
        seen += str(user.all("TABLE cmk.status")) + str(user.all("TABLE cmk.server"))
    dek = monitored.dba.one("SELECT encode(wrapped, 'hex') FROM cmk.data_key WHERE tenant = %s", tenant.name)
    assert dek[-32:] not in seen and tenant.key_uri not in seen and tenant.name in seen


def spent(pid):
    """Seconds of a processor that a process has used: what it takes, however busy the machine is with other things."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_ten_thousand_tenants_are_asked_for_soon_and_make_few_series(make_server, kms, session):
    with running(make_server) as server:
        dba = session(dbname="postgres", on=server)
        dba.run("CREATE EXTENSION cmk_encrypt")
        number = "md5(n::text)::uuid::text"
        dba.run(f"INSERT INTO cmk.tenant (tenant, state, key_uri, last_version)"
                f" SELECT 't' || n, 'active', 'arn:aws:kms:eu-central-1:111122223333:key/' || {number}, 1 FROM generate_series(1, 10000) n")
        dba.run(f"INSERT INTO cmk.data_key (tenant, version, commitment, wrapped, wrapped_by)"
                f" SELECT 't' || n, 1, sha256(n::text::bytea), '\\x00', 'arn:aws:kms:eu-central-1:111122223333:key/' || {number}"
                " FROM generate_series(1, 10000) n")
        dba.run("ANALYZE cmk.tenant")
        dba.run("ANALYZE cmk.data_key")
        took, rows = {}, 0
        for name, query in QUERIES.items():
            began = spent(dba.pid)
            rows += len(dba.all(query["query"]))
            took[name] = spent(dba.pid) - began
        assert rows < 10
        # A yardstick of the same minute: what the machine is worth changes.
        began = spent(dba.pid)
        dba.run("SELECT count(sha512(n::text::bytea)) FROM generate_series(1, 400000) n")
        yardstick = spent(dba.pid) - began
        print(f"with 10,000 tenants: { {name: round(seconds, 3) for name, seconds in took.items()} }, of {yardstick:.3f}")
        assert max(took.values()) < 3 * yardstick


def test_without_preloading_the_queries_run_and_say_so(dba):
    answers = {name: dba.run(query["query"]) for name, query in QUERIES.items()}
    names = [column.name for column in answers["cmk_encrypt_server"].description]
    server = dict(zip(names, answers["cmk_encrypt_server"].fetchone()))
    assert (server["preloaded"], server["keyring_worker"], server["watched"]) == (0, 0, 0)
    assert all(answer.fetchall() == [] or name != "cmk_encrypt_tenant" for name, answer in answers.items())


# The files


def test_the_rules_are_well_formed_and_fire_when_they_should():
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([tool("promtool"), *command], cwd=MONITORING, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested():
    text = (MONITORING / "alerts_test.yml").read_text()
    assert set(re.findall(r'alertname="(\w+)"', text)) == set(ALERTS)


def test_rules_and_dashboard_use_metrics_that_there_are_and_all_of_them():
    used = lambda text: set(re.findall(r"\bcmk_encrypt_(?:server|tenants?|check)_\w+", text))  # noqa: E731
    rules = used(str([rule["expr"] for rule in ALERTS.values()]))
    panels = used(json.dumps(DASHBOARD))
    assert rules | panels | used((MONITORING / "alerts_test.yml").read_text()) <= set(METRICS)
    assert panels == set(METRICS), "each has a panel"


def test_each_metric_that_counts_is_a_counter_by_name():
    assert {name for name, usage in METRICS.items() if usage == "COUNTER"} == {n for n in METRICS if n.endswith("_total")}


def test_the_dashboard_has_panels_that_fit():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        assert panel["targets"] and panel["title"] and at["x"] + at["w"] <= 24
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & taken, panel["title"]
        taken |= places


# The runbook

SECTIONS = ["What it means", "Who acts", "What users see", "Look", "Do", "It ends when", "Do not"]


def pages():
    return [Page(path) for path in sorted(RUNBOOKS.glob("*.md")) if path.name != "README.md"]


def test_each_alert_has_a_page_and_each_page_an_alert():
    leads_to = {alert: rule["annotations"]["runbook_url"] for alert, rule in ALERTS.items()}
    assert set(leads_to.values()) == {str(page) for page in pages()}
    index = (RUNBOOKS / "README.md").read_text()
    for alert, path in leads_to.items():
        page = Page(ROOT / path)
        assert f"`{alert}`" in page.text.split("##")[0], f"{path} says which alert it is about"
        assert re.search(rf"\| `{alert}` .*\({Path(path).name}\)", index), f"the index lists {alert}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_each_page_says_what_whoever_is_called_wants_to_know(page):
    assert page.headings()[1:] == SECTIONS
    assert page.has_sql(), "what to run"
