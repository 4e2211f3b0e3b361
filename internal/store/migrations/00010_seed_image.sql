-- +goose Up
-- +goose StatementBegin

-- Images of CDs, and the one that a VM's guest finds in its drive: a seed of the
-- user's own, or what else is to be read from it.
ALTER TYPE image_kind ADD VALUE 'iso';
ALTER TYPE image_role ADD VALUE 'iso';
ALTER TABLE vms ADD COLUMN seed_image_id uuid REFERENCES images(id),
  ADD CONSTRAINT one_seed CHECK (cloud_init IS NULL OR seed_image_id IS NULL);
CREATE INDEX vms_seed_image ON vms (seed_image_id) WHERE seed_image_id IS NOT NULL;

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
-- the values of the types stay: none can be taken away
ALTER TABLE vms DROP COLUMN seed_image_id;
-- +goose StatementEnd
