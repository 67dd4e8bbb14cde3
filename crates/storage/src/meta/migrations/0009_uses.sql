-- When a record was last asked for, in milliseconds since 1970; 0: not since this column is there. Written in batches.
ALTER TABLE artifacts ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
-- When it stops being fresh, by the configuration that it was written under; NULL: never, or not known.
ALTER TABLE artifacts ADD COLUMN expires_at BIGINT;
CREATE INDEX artifacts_used ON artifacts (repository, used_at) WHERE blob IS NOT NULL;
CREATE INDEX artifacts_expires ON artifacts (repository, expires_at) WHERE expires_at IS NOT NULL;
-- What was made of a document, when that goes.
CREATE INDEX derivation_sources_source ON derivation_sources (source);
