-- +goose Up
-- +goose StatementBegin

-- What becomes of a VM when its node is emptied.
ALTER TABLE vms ADD COLUMN drain_policy text NOT NULL DEFAULT 'live'
  CONSTRAINT drain_policy_is_known CHECK (drain_policy IN ('live', 'cold', 'stop', 'refuse'));

-- A node is emptied, or gets back what was taken from it, with the id of its job. At
-- most one of a node is under way.
CREATE TABLE drains (
  id          uuid PRIMARY KEY,
  node_id     uuid NOT NULL REFERENCES nodes(id),
  kind        text NOT NULL CHECK (kind IN ('drain', 'return')),
  state       text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled')),
  policy      text NOT NULL DEFAULT '' CHECK (policy IN ('', 'live', 'cold', 'stop', 'refuse')),
  parallel    int NOT NULL CHECK (parallel > 0),
  grace_ms    bigint NOT NULL CHECK (grace_ms >= 0),
  partial     boolean NOT NULL,
  reason      text NOT NULL DEFAULT '',
  created_by  text NOT NULL,
  request_id  text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CONSTRAINT ended_drain_has_a_time CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX drains_running ON drains (node_id) WHERE state = 'running';
CREATE INDEX drains_node ON drains (node_id, id);

-- What is done with each VM. It refers to no VM's row and outlives it.
CREATE TABLE drain_vms (
  drain_id       uuid NOT NULL REFERENCES drains(id) ON DELETE CASCADE,
  vm_id          uuid NOT NULL,
  vm_name        text NOT NULL,
  position       int NOT NULL,
  action         text NOT NULL,
  -- does it execute, and is to do so again
  runs           boolean NOT NULL,
  target_node_id uuid REFERENCES nodes(id),
  state          text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'left')),
  -- what is being done, by which job of the VM
  stage          text NOT NULL DEFAULT '',
  job_id         uuid,
  why            text NOT NULL DEFAULT '',
  started_at     timestamptz,
  finished_at    timestamptz,
  PRIMARY KEY (drain_id, vm_id)
);

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TABLE drain_vms;
DROP TABLE drains;
ALTER TABLE vms DROP COLUMN drain_policy;
-- +goose StatementEnd
