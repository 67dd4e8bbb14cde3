-- A blob whose file is being deleted: by which store, and since when. Nothing may refer to it until its row is gone.
ALTER TABLE blobs ADD COLUMN condemned_by TEXT;
ALTER TABLE blobs ADD COLUMN condemned_at BIGINT;
CREATE INDEX blobs_condemned ON blobs (condemned_at) WHERE condemned_by IS NOT NULL;
