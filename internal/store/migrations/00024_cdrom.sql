-- +goose Up
-- +goose StatementBegin

-- What is in the drive of a VM whose medium changes at any time.
ALTER TABLE vms ADD COLUMN cdrom_image_id uuid REFERENCES images(id);
CREATE INDEX vms_cdrom_image ON vms (cdrom_image_id) WHERE cdrom_image_id IS NOT NULL;

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN cdrom_image_id;
-- +goose StatementEnd
