from django.contrib import admin

from django_shop.models import Customer, Purchase


class PurchaseInline(admin.TabularInline):
    model = Purchase
    extra = 1


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["number", "name", "ssn", "note", "tenant"]
    list_filter = ["tenant", "ssn"]
    list_editable = ["note"]
    search_fields = ["name", "ssn", "=note"]
    ordering = ["ssn", "number"]
    inlines = [PurchaseInline]
