-- +goose Up
-- +goose StatementBegin

-- A VM's way from one node to another, with the id of its job. It refers to no VM's
-- row and outlives it.
CREATE TYPE migration_kind AS ENUM ('cold', 'warm', 'live');
CREATE TYPE migration_state AS ENUM ('running', 'succeeded', 'failed', 'cancelled');
CREATE TABLE migrations (
  id             uuid PRIMARY KEY,
  project_id     uuid NOT NULL REFERENCES projects(id),
  vm_id          uuid NOT NULL,
  vm_name        text NOT NULL,
  kind           migration_kind NOT NULL,
  state          migration_state NOT NULL DEFAULT 'running',
  reason         text NOT NULL DEFAULT '',
  source_node_id uuid NOT NULL REFERENCES nodes(id),
  target_node_id uuid NOT NULL REFERENCES nodes(id),
  -- the owner epoch that is copied, and the one under which the target owns the VM
  source_epoch   bigint NOT NULL CHECK (source_epoch >= 0),
  swapped_epoch  bigint,
  -- what the copy that is not the VM's, yet or any more, takes of which node
  held_node_id    uuid REFERENCES nodes(id),
  held_disk_bytes bigint NOT NULL DEFAULT 0 CHECK (held_disk_bytes >= 0),
  bytes_moved    bigint NOT NULL DEFAULT 0 CHECK (bytes_moved >= 0),
  -- {"bytes","seconds"}
  prediction     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(prediction) = 'object'),
  -- [{"name","at"}]
  phases         jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(phases) = 'array'),
  failure_code    text,
  failure_message text,
  created_by     text NOT NULL,
  revision       bigint NOT NULL DEFAULT 1,
  created_at     timestamptz NOT NULL DEFAULT now(),
  finished_at    timestamptz,
  updated_at     timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT between_two_nodes CHECK (source_node_id <> target_node_id),
  CONSTRAINT swapped_is_later CHECK (swapped_epoch > source_epoch),
  CONSTRAINT held_is_somewhere CHECK (held_node_id IS NOT NULL OR held_disk_bytes = 0),
  CONSTRAINT ended_holds_nothing CHECK (state = 'running' OR held_node_id IS NULL),
  CONSTRAINT ended_has_a_time CHECK ((state = 'running') = (finished_at IS NULL)),
  CONSTRAINT migration_failure_is_whole CHECK ((failure_code IS NULL) = (failure_message IS NULL))
);
CREATE INDEX migrations_project ON migrations (project_id, id);
CREATE INDEX migrations_vm ON migrations (vm_id, id);
CREATE INDEX migrations_running ON migrations (vm_id) WHERE state = 'running';
CREATE INDEX migrations_held ON migrations (held_node_id) WHERE held_node_id IS NOT NULL;
CREATE TRIGGER touch BEFORE UPDATE ON migrations FOR EACH ROW EXECUTE FUNCTION touch_row();

-- A machine that waits for the memory of one that runs elsewhere.
ALTER TYPE vm_phase ADD VALUE 'incoming' AFTER 'starting';

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TABLE migrations;
DROP TYPE migration_state;
DROP TYPE migration_kind;
-- +goose StatementEnd
