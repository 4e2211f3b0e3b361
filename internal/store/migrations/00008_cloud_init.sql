-- +goose Up
-- +goose StatementBegin

-- What cloud-init in a VM's guest is told; a document, null for nothing. A server
-- that does not know it leaves it alone.
ALTER TABLE vms ADD COLUMN cloud_init jsonb CHECK (jsonb_typeof(cloud_init) = 'object');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN cloud_init;
-- +goose StatementEnd
