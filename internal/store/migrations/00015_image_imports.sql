-- +goose Up
-- +goose StatementBegin

-- A file of an image that came in another program's format and is being converted
-- by a job. What came lies in the folder of images until the job ends; an image is
-- held by one such job at a time (images.job_id).
CREATE TABLE image_imports (
  job_id        uuid PRIMARY KEY REFERENCES jobs(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  image_id      uuid NOT NULL UNIQUE REFERENCES images(id) ON DELETE CASCADE,
  role          image_role NOT NULL,
  sha256        text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes    bigint NOT NULL CHECK (size_bytes > 0),
  format        text NOT NULL,
  virtual_bytes bigint NOT NULL CHECK (virtual_bytes > 0),
  created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX image_imports_sha ON image_imports (sha256);

-- What a file was made from; both are there or none.
ALTER TABLE image_files ADD COLUMN source_sha256 text CHECK (source_sha256 ~ '^[0-9a-f]{64}$'), ADD COLUMN source_format text,
  ADD CONSTRAINT whole_source CHECK ((source_sha256 IS NULL) = (source_format IS NULL));

-- +goose StatementEnd

-- +goose Down
ALTER TABLE image_files DROP COLUMN source_sha256, DROP COLUMN source_format;
DROP TABLE image_imports;
