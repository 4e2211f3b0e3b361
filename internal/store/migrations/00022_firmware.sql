-- +goose Up
-- +goose StatementBegin

-- What a guest starts by.
ALTER TABLE vms ADD COLUMN firmware text NOT NULL DEFAULT 'bios'
  CONSTRAINT firmware_is_known CHECK (firmware IN ('bios', 'uefi', 'uefi-secure-boot'));

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN firmware;
-- +goose StatementEnd
