-- +goose Up
-- +goose StatementBegin

-- A network interface may be on a bridge of its VM's node instead of in a user-mode
-- network, and forwards no ports then.
ALTER TABLE network_interfaces
  ADD COLUMN bridge text NOT NULL DEFAULT '' CHECK (bridge ~ '^([A-Za-z0-9_][A-Za-z0-9_.-]{0,14})?$'),
  ADD CONSTRAINT bridges_forward_nothing CHECK (bridge = '' OR forwards = '[]');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE network_interfaces DROP COLUMN bridge;
-- +goose StatementEnd
