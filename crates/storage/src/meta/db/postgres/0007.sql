-- What these mean is said where SQLite's tables are made.
CREATE TABLE figures (
    repository TEXT COLLATE "C" NOT NULL,
    point      TEXT COLLATE "C" NOT NULL,
    step       BIGINT NOT NULL,
    at         BIGINT NOT NULL,
    requests   BIGINT NOT NULL,
    hits       BIGINT NOT NULL,
    misses     BIGINT NOT NULL,
    stale      BIGINT NOT NULL,
    errors     BIGINT NOT NULL,
    refused    BIGINT NOT NULL,
    served     BIGINT NOT NULL,
    fetched    BIGINT NOT NULL,
    stored     BIGINT,
    free       BIGINT,
    began_at   BIGINT NOT NULL,
    PRIMARY KEY (repository, point)
);
CREATE INDEX figures_old ON figures (step, at);
CREATE TABLE asked (
    repository TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    variant    TEXT COLLATE "C" NOT NULL,
    requests   BIGINT NOT NULL,
    first_at   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    why        TEXT NOT NULL,
    PRIMARY KEY (repository, path, variant)
);
CREATE INDEX asked_last ON asked (repository, last_at);
CREATE INDEX asked_old ON asked (last_at);
