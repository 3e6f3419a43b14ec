"""A Django application as it stands before anybody thinks of encryption."""
