CREATE TABLE customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    ssn varchar(11) NOT NULL,
    note text NOT NULL DEFAULT ''
);
CREATE INDEX customer_tenant ON customer (tenant);
CREATE INDEX customer_ssn ON customer (tenant, ssn);
