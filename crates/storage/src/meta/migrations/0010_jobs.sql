-- Jobs that fetch many files into the cache, the oldest first. Any process over this database may take one up.
CREATE TABLE jobs (
    id          TEXT PRIMARY KEY NOT NULL, -- in the order in which they were made
    repository  TEXT NOT NULL,
    state       TEXT NOT NULL,             -- queued, running, done, cancelled, failed
    reason      TEXT NOT NULL,             -- why it has failed
    created_at  BIGINT NOT NULL,           -- milliseconds since 1970
    ended_at    BIGINT,
    runner      TEXT NOT NULL,             -- who works on it; empty: nobody
    lease_until BIGINT NOT NULL            -- after that anybody else may
) WITHOUT ROWID;
CREATE INDEX jobs_open ON jobs (id) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE job_items (
    job    TEXT NOT NULL,
    path   TEXT NOT NULL,
    state  TEXT NOT NULL,   -- queued, running, cached, skipped, failed
    bytes  BIGINT NOT NULL, -- of what is cached
    reason TEXT NOT NULL,   -- why it is skipped, or has failed
    PRIMARY KEY (job, path)
) WITHOUT ROWID;
CREATE INDEX job_items_state ON job_items (job, state, path);
