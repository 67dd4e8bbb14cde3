-- What these mean is said where SQLite's tables are made.
CREATE TABLE ages (
    repository    TEXT COLLATE "C" NOT NULL,
    path          TEXT COLLATE "C" NOT NULL,
    variant       TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C",
    size          BIGINT,
    published_at  BIGINT,
    first_seen_at BIGINT NOT NULL,
    contacted_at  BIGINT NOT NULL,
    PRIMARY KEY (repository, path, variant)
);
CREATE INDEX ages_contacted ON ages (contacted_at);
