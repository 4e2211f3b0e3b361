-- +goose Up
-- +goose StatementBegin

-- A node may suspend its guests when its host shuts down.
ALTER TABLE nodes DROP CONSTRAINT shutdown_policy_is_known;
ALTER TABLE nodes ADD CONSTRAINT shutdown_policy_is_known CHECK (shutdown_policy IN ('stop', 'suspend', 'leave'));

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
UPDATE nodes SET shutdown_policy = 'stop' WHERE shutdown_policy = 'suspend';
ALTER TABLE nodes DROP CONSTRAINT shutdown_policy_is_known;
ALTER TABLE nodes ADD CONSTRAINT shutdown_policy_is_known CHECK (shutdown_policy IN ('stop', 'leave'));
-- +goose StatementEnd
