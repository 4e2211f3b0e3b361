-- +goose Up
-- +goose StatementBegin

-- The board and the processor that a guest sees. 'q35' is any version of that board:
-- it becomes one, for good, when the VM is placed, or started next. VMs that are
-- there, and those that an earlier program makes, have all that their node can do.
ALTER TABLE vms ADD COLUMN machine_type text NOT NULL DEFAULT 'q35'
    CONSTRAINT machine_type_is_ours CHECK (machine_type ~ '^(q35|pc-q35-[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?)$'),
  ADD COLUMN cpu_model text NOT NULL DEFAULT 'max'
    CONSTRAINT cpu_model_is_a_word CHECK (cpu_model ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN machine_type, DROP COLUMN cpu_model;
-- +goose StatementEnd
