-- What these mean is said where SQLite's tables are made.
CREATE TABLE jobs (
    id          TEXT COLLATE "C" PRIMARY KEY,
    repository  TEXT NOT NULL,
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    ended_at    BIGINT,
    runner      TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
CREATE INDEX jobs_open ON jobs (id) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE job_items (
    job    TEXT COLLATE "C" NOT NULL,
    path   TEXT COLLATE "C" NOT NULL,
    state  TEXT COLLATE "C" NOT NULL,
    bytes  BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (job, path)
);
CREATE INDEX job_items_state ON job_items (job, state, path);
