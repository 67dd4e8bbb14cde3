-- How much each repository holds, counted without reading a record.
CREATE INDEX artifacts_held ON artifacts (repository, size) WHERE size IS NOT NULL;
