-- Addresses of upstreams. Those of one repository with equal origins are one upstream; '' is the first that it has had.
CREATE TABLE origins (
    repository TEXT NOT NULL,
    url        TEXT NOT NULL, -- what it is for, a space, scheme, host, port and path
    origin     TEXT NOT NULL,
    PRIMARY KEY (repository, url)
);
