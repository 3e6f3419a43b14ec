"""Runs a recipe of docs/applications.md, which is in the environment, on a table `contact` with an index of tokens."""

import os
import sys

from checks import check

NAMES = {"email": "ADA@example.com"}


def in_django():
    import django
    from django.conf import settings
    from django.db import models

    engine = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}
    settings.configure(DATABASES={"default": engine}, INSTALLED_APPS=[])
    django.setup()

    class Contact(models.Model):
        id = models.BigIntegerField(primary_key=True)
        tenant = models.TextField()
        email_token = models.BinaryField()

        class Meta:
            app_label, managed, db_table = "recipes", False, "contact"

    found = run({**vars(models), "Contact": Contact})
    check("found", [contact.id for contact in found])
    check("plan", found.explain())


def in_sqlalchemy():
    import sqlalchemy
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Contact(Base):
        __tablename__ = "contact"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant: Mapped[str]
        email_token: Mapped[bytes]

    found = run({**vars(sqlalchemy), "Contact": Contact})
    with Session(sqlalchemy.create_engine(f"postgresql+psycopg://?host={os.environ['PGHOST']}")) as session:
        check("found", [contact.id for contact in session.scalars(found)])
        query = found.compile(session.connection(), compile_kwargs={"literal_binds": True})
        check("plan", "\n".join(session.scalars(sqlalchemy.text(f"EXPLAIN {query}"))))


def run(names):
    """What a recipe, which knows these names, calls found."""
    names = {**names, **NAMES}
    exec(os.environ["RECIPE"], names)
    return names["found"]


{"django": in_django, "sqlalchemy": in_sqlalchemy}[sys.argv[-1]]()
