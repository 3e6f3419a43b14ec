"""An SQLAlchemy application's models, as they stand before anybody thinks of encryption."""

import os

from sqlalchemy import BigInteger, ForeignKey, String, Text, UniqueConstraint, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship
from sqlalchemy.pool import NullPool

engine = create_engine(f"postgresql+psycopg://?host={os.environ['PGHOST']}", poolclass=NullPool)


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customer"
    __table_args__ = (UniqueConstraint("tenant_id", "number", name="customer_number"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    number: Mapped[int]
    name: Mapped[str] = mapped_column(String(80))
    ssn: Mapped[str | None] = mapped_column(String(20))
    note: Mapped[str] = mapped_column(Text, default="", server_default="nothing")
    visits: Mapped[int] = mapped_column(default=0, server_default="0")
    last_four: Mapped[str | None] = column_property(func.right(ssn, 4))
    purchases: Mapped[list["Purchase"]] = relationship(back_populates="customer", order_by="Purchase.id")

    def __repr__(self):
        return f"{self.tenant_id} {self.number} {self.ssn} {self.note}"


class Purchase(Base):
    __tablename__ = "purchase"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    item: Mapped[str]
    price: Mapped[int]
    customer: Mapped[Customer] = relationship(back_populates="purchases")


PLACE = (Customer.tenant_id, Customer.number)
ssn, note = Customer.ssn, Customer.note


def everything(session):
    query = select(*PLACE, Customer.name, ssn, note, Customer.visits, Customer.last_four).order_by(*PLACE)
    return [list(row) for row in session.execute(query)]
