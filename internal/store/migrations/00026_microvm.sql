-- +goose Up
-- +goose StatementBegin

-- A board of another kind, which has no versions.
ALTER TABLE vms DROP CONSTRAINT machine_type_is_ours,
  ADD CONSTRAINT machine_type_is_ours CHECK (machine_type ~ '^(microvm|q35|pc-q35-[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?)$');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP CONSTRAINT machine_type_is_ours,
  ADD CONSTRAINT machine_type_is_ours CHECK (machine_type ~ '^(q35|pc-q35-[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?)$');
-- +goose StatementEnd
