"""A Django application's life: migrations, a day's queries, the admin site."""

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, connection

from checks import check, refused

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "OPTIONS": json.loads(os.environ.get("DJANGO_OPTIONS", "{}")),
        }
    },
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
        "django.contrib.sessions", "django_shop",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                    "django.template.context_processors.request",
                ]
            },
        }
    ],
    ROOT_URLCONF="django_shop.urls",
    SECRET_KEY="EXAMPLE",
    ALLOWED_HOSTS=["testserver"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)  # fmt: skip
django.setup()

from django_shop.look_ups import look_ups  # noqa: E402 (needs the settings)
from django_shop.models import Customer, Purchase, Tenant  # noqa: E402
from django_shop.office import admin  # noqa: E402
from django_shop.reads import reads  # noqa: E402
from django_shop.rows import customers, everything, numbers  # noqa: E402
from django_shop.writes import writes  # noqa: E402


def create():
    call_command("migrate", "django_shop", "0001", verbosity=0)
    acme = Tenant.objects.create(name="acme", city="Oslo")
    globex = Tenant.objects.create(name="globex", city="Bergen")
    people = [
        (acme, 1, "Ada", "536-90-4399", "pays in cash"),
        (acme, 2, "Bo", "078-05-1120", "Ünïcode: Łódź 東京 🗝"),
        (acme, 3, "Cy", None, ""),
        (globex, 1, "Di", "536-90-4399", "the same number as Ada's"),
        (globex, 2, "Ed", "", "100% _sure_ \\ 'quoted' \"twice\""),
        (globex, 3, "Flo", "219-09-9999", "pays in cash"),
    ]
    for tenant, number, name, ssn, note in people:
        Customer.objects.create(tenant=tenant, number=number, name=name, ssn=ssn, note=note)
    for customer in customers:
        Purchase.objects.create(customer=customer, item=f"item {customer.number}", price=10 * customer.number)
    check("created", everything())


def tidy():
    call_command("migrate", "django_shop", "0002", verbosity=0)
    check("migrated", everything())
    check("after the migration", numbers(customers.filter(note__startswith="PAYS")))


def longer():
    refused("longer", lambda: call_command("migrate", "django_shop", "0003", verbosity=0), DatabaseError)
    check("still there", everything())


def longer_by_hand():
    """The DBA has changed the column; Django is told that it is done."""
    call_command("migrate", "django_shop", "0003", fake=True, verbosity=0)
    Customer.objects.filter(tenant="acme", number=1).update(ssn="x" * 40)
    check("longer", Customer.objects.get(ssn="x" * 40).number)
    with connection.cursor() as cursor:
        refused("too long", lambda: cursor.execute("UPDATE customer SET ssn = %s", ["x" * 41]), DatabaseError)


def in_the_office():
    for app in ("contenttypes", "auth", "admin", "sessions"):
        call_command("migrate", app, verbosity=0)
    admin()


def work():
    writes()
    reads()


STEPS = {
    "create": create, "work": work, "tidy": tidy, "admin": in_the_office, "longer": longer,
    "longer by hand": longer_by_hand, "look-ups": look_ups,
}  # fmt: skip
STEPS[sys.argv[-1]]()
