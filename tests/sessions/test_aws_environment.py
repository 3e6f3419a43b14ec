"""The environment of AWS that people have: each variable and each source of credentials does what the table in
docs/aws.md says, and who asks wrongly is told by whose fault."""

import os
import time

import pytest
from psycopg.types.json import Jsonb

from aws_doubles import CONTAINER, IMDS, WEB, ForwardProxy, Sources
from estate import KEYS, REGION, Estate
from support import CANARY, fails, unique
from tls_proxy import TlsProxy

OWN = "eu-west-1"
# Of the tenants' Region
KMS, STS = f"kms.{REGION}.amazonaws.com:443", f"sts.{OWN}.amazonaws.com:443"
ROLE = "arn:aws:iam::111122223333:role/cmk-web"
PROFILE = "AKIAFAKEPROFILE00000"
OF_PROFILE = f"aws_access_key_id = {PROFILE}\naws_secret_access_key = not-a-secret\n"
SOON = {"kms_attempt_timeout": "400ms", "kms_operation_timeout": "900ms", "kms_max_attempts": 2}


@pytest.fixture(scope="module")
def sources():
    double = Sources()
    yield double
    double.close()


@pytest.fixture(scope="module")
def tls(kms_process):
    proxy = TlsProxy(kms_process.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def forward(tls):
    proxy = ForwardProxy(tls.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def site(make_server, kms_process, sources):
    """An estate whose profile says who it is, and whose instance and container are doubles."""
    estate = Estate(make_server, kms_process, preloaded=True)
    estate.profile = lambda text: estate.file("config", text)
    estate.base = {
        "AWS_CONFIG_FILE": estate.profile(f"[default]\n{OF_PROFILE}"),
        "AWS_EC2_METADATA_DISABLED": None,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": sources.url,
    }
    estate.become(**estate.base)
    yield estate
    estate.close()


@pytest.fixture
def estate(site, kms):
    site.profile(f"[default]\n{OF_PROFILE}")
    return site


def told(cause, **more):
    return {"cause": cause, **more}


# Profiles: a new backend reads the file anew


def test_keys_and_an_empty_profile(estate):
    assert estate.reads() == PROFILE
    # Nothing there: the next source is asked.
    estate.profile("[default]\n")
    assert estate.reads() == IMDS


@pytest.mark.parametrize("source, taken", [("Ec2InstanceMetadata", IMDS)])
def test_a_role_of_a_profile_with_a_source(estate, kms, source, taken):
    role = kms.role("estate-1")
    estate.profile(f"[default]\nrole_arn = {role}\nexternal_id = estate-1\ncredential_source = {source}\n")
    assert estate.reads().startswith("ASIAFAKE")
    assert [it["access_key_id"] for it in kms.log() if it["operation"] == "AssumeRole"][-1] == taken


def test_a_role_of_a_profile_on_another_profile(estate, kms):
    role = kms.role("estate-2")
    estate.profile(
        f"[default]\nrole_arn = {role}\nexternal_id = estate-2\nsource_profile = base\n[profile base]\n{OF_PROFILE}"
    )
    assert estate.reads().startswith("ASIAFAKE")
    # A refusal of ours is no withdrawal by a tenant.
    kms.trust(role, "another", None)
    got = estate.refused("F0000", "credentials", with_hint="external_id")
    assert got.pop("request_id") and got == told("assume_role", region=REGION, kms_code="AccessDenied")


@pytest.mark.parametrize("line", [
    "credential_process = /bin/echo '{}'",
    "sso_session = corporate",
    "sso_start_url = https://corporate.example/start\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r",
    "login_session = arn:aws:iam::111122223333:user/fake",
])
def test_what_runs_a_program_or_waits_for_a_login_is_refused(estate, line):
    estate.profile(f"[default]\n{line}\n")
    got = estate.refused("F0000", "credentials", with_hint="credential_process")
    assert got == told("unsupported_profile", provider="profile")


@pytest.mark.parametrize("text", [
    "[default]\nrole_arn = r\n",
    "[default]\nrole_arn = r\nsource_profile = nowhere\n",
    "[default]\naws_access_key_id = AKIAFAKE\n",
    "nonsense [",
])
def test_a_profile_that_makes_no_sense(estate, text):
    estate.profile(text)
    assert estate.refused("F0000", "credentials", with_hint="docs/aws.md") == told("credentials:profile")


@pytest.mark.parametrize("variable, cause", [
    ("AWS_CONFIG_FILE", "credentials:profile"),
    ("AWS_SHARED_CREDENTIALS_FILE", "credentials:profile"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "credentials:container"),
])
def test_nobody_waits_for_who_writes_a_pipe(become, site, variable, cause):
    pipe = site.dir / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe, 0o644)
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}
    web = {"AWS_ROLE_ARN": ROLE, "AWS_REGION": REGION} if "WEB" in variable else {}
    become(**{variable: str(pipe)}, **(container if "CONTAINER" in variable else web))
    began = time.monotonic()
    assert site.refused("F0000", "credentials")["cause"] == cause
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("lines, where", [
    ("endpoint_url = http://kms.example", "profile"),
    ("services = here\n[services here]\nkms =\n  endpoint_url = http://kms.example", "profile"),
])
def test_endpoints_of_a_profile_are_held_to_the_rule_and_our_settings_win(estate, kms, lines, where):
    estate.profile(f"[default]\n{OF_PROFILE}{lines}\n")
    assert estate.reads() == PROFILE
    with estate.settings(kms_endpoint_url="", kms_max_attempts=1):
        got = estate.refused("F0000", "endpoint", with_hint="loopback")
        assert got == {"cause": "endpoint", "from": where}
        estate.profile(f"[default]\n{OF_PROFILE}{lines}\n".replace("http://kms.example", kms.url))
        assert estate.reads() == PROFILE


# The instance and the container


@pytest.mark.parametrize("mode, cause", [
    ("hang", told("credentials_timeout", provider="imds", layer="timeout_response", host="127.0.0.1")),
    ("fail", told("credentials:imds")),
    ("deny", told("credentials:imds")),
])
def test_a_metadata_service_that_gives_nothing(estate, sources, mode, cause):
    estate.profile("[default]\n")
    # Of a failure the SDK tries again after up to a second.
    limits = SOON if mode == "hang" else {"kms_max_attempts": 1, "kms_attempt_timeout": "4s"}
    with sources.told_to(mode), estate.settings(**limits):
        assert estate.refused("F0000", "credentials", with_hint="provider") == cause
    assert estate.reads() == IMDS


def test_sessions_that_wait_for_a_source_that_hangs_share_the_wait(estate, sources):
    estate.profile("[default]\n")
    tenant = estate.sealed
    with sources.told_to("hang"), estate.settings(**SOON):
        estate.evict(tenant)
        with estate.session() as one, estate.session() as two, estate.session() as three:
            began = time.monotonic()
            running = [it.start("SELECT cmk_encrypt(%s, '\\x00'::bytea)", tenant.name) for it in (one, two, three)]
            for future in running:
                with fails("F0000", "credentials", tenant):
                    future.result(timeout=10)
            assert time.monotonic() - began < 2 * 0.9
    assert estate.reads() == IMDS


@pytest.fixture(scope="module")
def container(site, sources):
    site.become(**site.base | {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{sources.url}/container",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": site.file("pod-token", "fake-pod-token"),
    })
    yield site
    site.become(**site.base)


def test_the_container_gives_credentials_or_says_why_not(container, kms, sources):
    container.profile("[default]\n")
    assert container.reads() == CONTAINER
    with container.settings(**SOON):
        with sources.told_to("hang"):
            got = container.refused("F0000", "credentials")
            assert got == told("credentials_timeout", provider="container", layer="timeout_response", host="127.0.0.1")
        with sources.told_to("deny"):
            assert container.refused("F0000", "credentials") == told("credentials:container")
    role = kms.role("estate-3")
    container.profile(f"[default]\nrole_arn = {role}\nexternal_id = estate-3\ncredential_source = EcsContainer\n")
    assert container.reads().startswith("ASIAFAKE")
    [row] = container.dba.all("SELECT principal, account, credentials FROM cmk.identity()")
    assert row == (role, "111122223333", "profile")


# The environment of the server


@pytest.fixture
def become(site, kms):
    """Another environment for the estate, until the test is over."""
    yield site.become
    site.become(**site.base)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"])
def test_endpoints_of_the_environment(become, site, kms, name):
    become(**KEYS, **{name: "http://kms.example"})
    assert site.reads() == KEYS["AWS_ACCESS_KEY_ID"]
    with site.settings(kms_endpoint_url="", sts_endpoint_url=""):
        got = site.refused("F0000", "endpoint", with_hint="loopback")
    assert got == {"cause": "endpoint", "from": name}


def test_an_endpoint_of_the_environment_is_used(become, site, kms):
    become(**KEYS, AWS_ENDPOINT_URL_KMS=kms.url, AWS_ENDPOINT_URL_STS="http://sts.example")
    with site.settings(kms_endpoint_url="", sts_endpoint_url=""):
        got = site.refused("F0000", "endpoint")
        assert got == {"cause": "endpoint", "from": "AWS_ENDPOINT_URL_STS"}
    with site.settings(kms_endpoint_url=""):
        assert site.reads() == KEYS["AWS_ACCESS_KEY_ID"]


def test_a_metadata_service_elsewhere_gets_nothing_in_clear_text(become, site):
    become(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://10.0.0.1")
    got = site.refused("F0000", "endpoint")
    assert got == {"cause": "endpoint", "host": "10.0.0.1"}


def test_no_credentials_at_all(become, site):
    become()
    assert site.refused("F0000", "credentials") == told("credentials:none")


def test_a_profile_that_is_asked_for_is_there(become, site):
    become(AWS_CONFIG_FILE=site.base["AWS_CONFIG_FILE"], AWS_PROFILE="other")
    site.profile(f"[default]\nregion = x\n[profile other]\n{OF_PROFILE}")
    assert site.reads() == PROFILE
    site.profile(f"[default]\n{OF_PROFILE}")
    assert site.refused("F0000", "credentials") == told("credentials:profile")


@pytest.mark.parametrize("env, source", [
    ({"AWS_USE_FIPS_ENDPOINT": "true"}, "AWS_USE_FIPS_ENDPOINT"),
    ({"AWS_USE_FIPS_ENDPOINT": "maybe"}, "AWS_USE_FIPS_ENDPOINT"),
])
def test_fips_and_an_endpoint_are_too_much(become, site, env, source):
    become(**KEYS, **env)
    got = site.refused("F0000", "endpoint", with_hint="FIPS")
    assert got == {"cause": "fips", "from": source}


@pytest.mark.parametrize("bundle", ["/nowhere.pem", "/dev/null"])
def test_a_bundle_that_is_none(become, site, bundle):
    become(**KEYS, AWS_CA_BUNDLE=bundle)
    got = site.refused("F0000", "endpoint", with_hint="AWS_CA_BUNDLE")
    assert got == {"cause": "trust", "from": "AWS_CA_BUNDLE"}


def test_a_system_without_authorities_trusts_nobody(become, site, tls):
    become(**KEYS, SSL_CERT_FILE="/nowhere.pem", SSL_CERT_DIR="/nowhere")
    with site.settings(kms_endpoint_url=tls.url, kms_max_attempts=1):
        got = site.refused("58000", "kms_unreachable", with_hint="ca-certificates")
    assert got == told("trust", host="localhost", region=REGION)
    become(**KEYS, SSL_CERT_FILE=str(tls.authority))
    with site.settings(kms_endpoint_url=tls.url):
        assert site.reads() == KEYS["AWS_ACCESS_KEY_ID"]


# Web identity


def test_web_identity_asks_sts_where_our_settings_say(become, site, sources):
    token = site.file("web-token", "fake.web.token\n")
    web = {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"}
    become(**web, AWS_REGION=OWN)
    with site.settings(sts_endpoint_url=sources.url):
        assert site.reads() == WEB
        with site.settings(**SOON):
            with sources.told_to("hang"):
                got = site.refused("F0000", "credentials")
                assert got == told(
                    "credentials_timeout", provider="web_identity", layer="timeout_response", host="127.0.0.1", region=OWN
                )
        with sources.told_to("deny"):
            got = site.refused("F0000", "credentials", with_hint="token file")
            assert got == told("web_identity", region=OWN, kms_code="AccessDenied")
        site.file("web-token", "")
        assert site.refused("F0000", "credentials") == told("web_identity", region=OWN)
    with site.settings(sts_endpoint_url="http://127.0.0.1:1", kms_max_attempts=1):
        site.file("web-token", "fake.web.token\n")
        got = site.refused("F0000", "credentials", with_hint="STS")
        assert got == told("web_identity", layer="refused", host="127.0.0.1", region=OWN)


# The way of somebody who has no endpoint settings: a forward proxy, public names, authorities of their own


@pytest.fixture(scope="module")
def proxied(site, tls, forward):
    """The environment of such a server, as a function of what else it says."""
    site.server.reload("SET cmk_encrypt.kms_endpoint_url = ''", "SET cmk_encrypt.sts_endpoint_url = ''")
    yield lambda **env: {
        **KEYS, "HTTPS_PROXY": forward.url, "AWS_CA_BUNDLE": str(tls.authority), "AWS_REGION": OWN, **env,
    }
    site.server.reload("RESET cmk_encrypt.kms_endpoint_url", "RESET cmk_encrypt.sts_endpoint_url")


def assuming(site, kms):
    """A tenant whose key lets in one role alone."""
    role, arn, name = kms.role("estate-9"), kms.key(), unique("tenant")
    kms.principals(arn, [role])
    options = Jsonb({"role_arn": role, "external_id": "estate-9"})
    site.dba.run("SELECT cmk.register_tenant(%s, %s, %s)", name, arn, options)
    return name


def test_all_goes_through_the_proxy_and_sts_is_asked_in_our_region(become, site, kms, proxied, forward):
    become(**proxied())
    assert site.reads() == KEYS["AWS_ACCESS_KEY_ID"]
    assert set(forward.targets) == {KMS}
    forward.targets.clear()
    name = assuming(site, kms)
    assert set(forward.targets) == {KMS, STS}
    assert site.dba.one("SELECT cmk_decrypt(%s, cmk_encrypt(%s, %b))", name, name, CANARY) == CANARY
    forward.targets.clear()
    user = f"arn:aws:iam::111122223333:user/{KEYS['AWS_ACCESS_KEY_ID']}"
    row = site.dba.row("SELECT principal, session, account, credentials, region FROM cmk.identity()")
    assert row == (user, user, "111122223333", "environment", OWN)
    assert forward.targets == [STS]
    # The proxy's refusal is the proxy's.
    forward.refuses = True
    try:
        with site.settings(kms_max_attempts=1):
            got = site.refused("58000", "kms_unreachable", with_hint="HTTPS_PROXY")
    finally:
        forward.refuses = False
    assert got == told("proxy", host="127.0.0.1", region=REGION)
    log = site.server.log.read_text()
    assert forward.PASSWORD not in log


@pytest.mark.parametrize("env, target", [
    ({"AWS_USE_FIPS_ENDPOINT": "true"}, f"kms-fips.{REGION}.amazonaws.com:443"),
    ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, f"kms.{REGION}.api.aws:443"),
])
def test_other_forms_of_the_endpoint(become, site, proxied, forward, env, target):
    become(**proxied(**env))
    forward.targets.clear()
    assert site.reads() == KEYS["AWS_ACCESS_KEY_ID"]
    assert set(forward.targets) == {target}


def test_who_is_exempt_and_what_is_no_proxy(become, site, proxied, forward):
    become(**proxied(NO_PROXY=".invalid,kms.example"))
    forward.targets.clear()
    with site.settings(kms_endpoint_url="https://kms.{region}.invalid", kms_max_attempts=1):
        got = site.refused("58000", "kms_unreachable")
    assert got == told("dns", host=f"kms.{REGION}.invalid", region=REGION) and not forward.targets
    become(**proxied(HTTPS_PROXY="socks5://127.0.0.1:1"))
    got = site.refused("F0000", "endpoint", with_hint="HTTPS_PROXY")
    assert got == {"cause": "proxy", "from": "HTTPS_PROXY"}


def test_one_endpoint_setting_serves_tenants_in_several_regions(become, site, kms, proxied, forward):
    become(**proxied())
    with site.settings(
        kms_endpoint_url="https://vpce-1.{region}.amazonaws.com", sts_endpoint_url="https://vpce-2.{region}.amazonaws.com"
    ):
        forward.targets.clear()
        for region in (REGION, "us-east-1"):
            site.tenant(kms.key(region))
        assert set(forward.targets) == {f"vpce-1.{region}.amazonaws.com:443" for region in (REGION, "us-east-1")}
        forward.targets.clear()
        assuming(site, kms)
        assert set(forward.targets) == {f"vpce-1.{REGION}.amazonaws.com:443", f"vpce-2.{OWN}.amazonaws.com:443"}


def test_a_region_that_is_none(become, site, proxied):
    become(**proxied(AWS_REGION="eu west"))
    got = site.refused("F0000", "endpoint", with_hint="Region")
    assert got == {"cause": "endpoint", "from": "AWS_REGION"}
    with fails("F0000", "endpoint"):
        site.dba.all("SELECT * FROM cmk.identity('evil.example/')")
