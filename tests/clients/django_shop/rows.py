"""Which rows there are, as a check prints it."""

from django_shop.models import Customer

customers = Customer.objects.order_by("tenant", "number")


def numbers(queryset):
    return list(queryset.values_list("tenant_id", "number"))


def everything():
    return list(customers.values_list("tenant_id", "number", "name", "ssn", "note", "visits"))
