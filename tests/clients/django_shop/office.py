"""Somebody at work in the admin site."""

import re

from django.contrib.auth.models import User
from django.test import Client

from checks import check
from django_shop.models import Customer
from django_shop.rows import everything


def admin():
    site = Client()
    site.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    url = "/admin/django_shop/customer/"

    def rows(html):
        cells = re.findall(r'<t[dh] class="field-(\w+)[^"]*">(.*?)</t[dh]>', html, re.DOTALL)
        return [(name, re.sub("<[^>]*>", "", cell).strip()) for name, cell in cells]

    for name, query in {
        "all": "", "search": "?q=536-90", "search of a note": "?q=%22PAYS+in+cash%22", "sorted": "?o=3.1",
        "backwards": "?o=-3.1",
        "filtered": "?ssn=536-90-4399", "of a tenant": "?tenant__name=globex", "by two": "?ssn=536-90-4399&q=ada",
    }.items():  # fmt: skip
        page = site.get(url + query)
        check(f"list, {name}", (page.status_code, rows(page.content.decode())))
    page = site.get(url)
    check("the filter's choices", re.findall(r'\?ssn=([^"&]*)"', page.content.decode()))
    first = Customer.objects.get(tenant="acme", number=1)
    check(
        "form", re.findall(r'name="(ssn|name)" value="([^"]*)"', site.get(f"{url}{first.pk}/change/").content.decode())
    )
    inline = {
        "purchases-TOTAL_FORMS": 0, "purchases-INITIAL_FORMS": 0, "purchases-MIN_NUM_FORMS": 0,
        "purchases-MAX_NUM_FORMS": 1000,
    }  # fmt: skip
    form = {"tenant": "acme", "number": 1, "name": "Ada", "ssn": "536-90-4399", "note": "by the admin", "visits": 3}
    check("change", site.post(f"{url}{first.pk}/change/", {**form, **inline}).status_code)
    check("add", site.post(f"{url}add/", {**form, **inline, "number": 70, "ssn": "700-70-7000"}).status_code)
    check(
        "add too long",
        re.findall(r"has \d+", site.post(f"{url}add/", {**form, **inline, "ssn": "7" * 21}).content.decode()),
    )
    check("after the forms", everything())
    doomed = Customer.objects.get(ssn="700-70-7000")
    check("delete", site.post(f"{url}{doomed.pk}/delete/", {"post": "yes"}).status_code)
    check("history", list(doomed.__class__.objects.filter(ssn="700-70-7000")))
