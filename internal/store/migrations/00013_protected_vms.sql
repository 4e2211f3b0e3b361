-- +goose Up
-- +goose StatementBegin

-- A VM may be protected against deletion.
ALTER TABLE vms ADD COLUMN protected boolean NOT NULL DEFAULT false;

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN protected;
-- +goose StatementEnd
