-- What these mean is said where SQLite's tables are made.
ALTER TABLE artifacts ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE artifacts ADD COLUMN expires_at BIGINT;
CREATE INDEX artifacts_used ON artifacts (repository, used_at, rowid) WHERE blob IS NOT NULL;
CREATE INDEX artifacts_expires ON artifacts (repository, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX derivation_sources_source ON derivation_sources (source);
