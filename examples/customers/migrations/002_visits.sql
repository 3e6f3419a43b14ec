CREATE TABLE visit (
    customer bigint NOT NULL REFERENCES customer ON DELETE CASCADE,
    day date NOT NULL,
    PRIMARY KEY (customer, day)
);
