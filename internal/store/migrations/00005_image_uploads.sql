-- +goose Up
-- +goose StatementBegin

-- A file of an image that is on its way. offset_bytes is what lies durably in
-- the folder of images, and hash_state is SHA-256's inner state at exactly that
-- byte: both are written together, so that an upload goes on from there after
-- any crash.
CREATE TABLE image_uploads (
  id           uuid PRIMARY KEY,
  project_id   uuid NOT NULL REFERENCES projects(id),
  image_id     uuid NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  role         image_role NOT NULL,
  -- who began it, and alone may go on
  principal    text NOT NULL,
  size_bytes   bigint NOT NULL CHECK (size_bytes > 0),
  -- what the sender promises; null when it promises nothing
  sha256       text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  offset_bytes bigint NOT NULL DEFAULT 0,
  hash_state   bytea NOT NULL DEFAULT '',
  -- the address of the server whose folder has the part; empty before it has one
  server       text NOT NULL DEFAULT '',
  expires_at   timestamptz NOT NULL DEFAULT now() + interval '24 hours',
  revision     bigint NOT NULL DEFAULT 1,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  UNIQUE (image_id, role, principal),
  CHECK (offset_bytes BETWEEN 0 AND size_bytes)
);
CREATE INDEX image_uploads_expires ON image_uploads (expires_at);
CREATE TRIGGER touch BEFORE UPDATE ON image_uploads FOR EACH ROW EXECUTE FUNCTION touch_row();

-- +goose StatementEnd

-- +goose Down
DROP TABLE image_uploads;
