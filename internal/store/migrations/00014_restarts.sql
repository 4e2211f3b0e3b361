-- +goose Up
-- +goose StatementBegin

-- When a VM is started again whose guest ended by itself, and what became of it by
-- that: kept until somebody starts or stops it.
ALTER TABLE vms ADD COLUMN restart_policy text NOT NULL DEFAULT 'never'
  CHECK (restart_policy IN ('never', 'on_failure', 'always'));
CREATE INDEX vms_restarting ON vms (id) WHERE restart_policy <> 'never' AND power = 'on';

CREATE TABLE vm_restarts (
  vm_id      uuid PRIMARY KEY REFERENCES vms(id) ON DELETE CASCADE,
  total      int NOT NULL CHECK (total >= 0),
  in_a_row   int NOT NULL CHECK (in_a_row BETWEEN 0 AND total),
  reason     text NOT NULL,
  ended_at   timestamptz NOT NULL,
  last_at    timestamptz,
  -- by the database's clock; nothing but patience depends on it
  next_at    timestamptz,
  gave_up_at timestamptz,
  CONSTRAINT given_up_waits_for_nothing CHECK (next_at IS NULL OR gave_up_at IS NULL)
);

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TABLE vm_restarts;
DROP INDEX vms_restarting;
ALTER TABLE vms DROP COLUMN restart_policy;
-- +goose StatementEnd
