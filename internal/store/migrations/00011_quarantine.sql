-- +goose Up
-- +goose StatementBegin

-- A node in quarantine is held like one that is ahead of the database, and no server
-- speaks with it. It may be held for another reason as well, which outlives that.
ALTER TABLE recovery_nodes DROP CONSTRAINT recovery_nodes_cause_check;
ALTER TABLE recovery_nodes ADD CONSTRAINT recovery_nodes_cause_check CHECK (cause IN ('restored', 'ahead', 'misbehaved'));
-- what it did; empty when it did nothing of the kind
ALTER TABLE recovery_nodes ADD COLUMN misbehaved text NOT NULL DEFAULT '';
ALTER TABLE recovery_nodes ADD CONSTRAINT misbehaved_says_how CHECK (cause <> 'misbehaved' OR misbehaved <> '');

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DELETE FROM recovery_nodes WHERE cause = 'misbehaved';
ALTER TABLE recovery_nodes DROP CONSTRAINT misbehaved_says_how;
ALTER TABLE recovery_nodes DROP COLUMN misbehaved;
ALTER TABLE recovery_nodes DROP CONSTRAINT recovery_nodes_cause_check;
ALTER TABLE recovery_nodes ADD CONSTRAINT recovery_nodes_cause_check CHECK (cause IN ('restored', 'ahead'));
-- +goose StatementEnd
