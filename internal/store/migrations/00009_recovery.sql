-- +goose Up
-- +goose StatementBegin

-- Going back to an older database. One row: whether the whole cluster is held,
-- and what was confirmed last.
CREATE TABLE recovery (
  singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- 'restored' by 'novacron db restore', or 'nodes': so many nodes are ahead of the
  -- database that it must be the database that is behind; null when nothing is held
  cause        text CHECK (cause IN ('restored', 'nodes')),
  reason       text NOT NULL DEFAULT '',
  since        timestamptz,
  -- of the last restore, and when the backup it is from was made
  restored_at  timestamptz,
  backup_of    timestamptz,
  plan         text NOT NULL DEFAULT '',
  confirmed_at timestamptz,
  confirmed_by text NOT NULL DEFAULT '',
  CONSTRAINT held_is_whole CHECK ((cause IS NULL) = (since IS NULL))
);
INSERT INTO recovery DEFAULT VALUES;

-- Nodes that are held by themselves: 'restored' ones were away when the difference
-- was confirmed, 'ahead' ones told of more than the database knows.
CREATE TABLE recovery_nodes (
  node_id uuid PRIMARY KEY REFERENCES nodes(id) ON DELETE CASCADE,
  cause   text NOT NULL CHECK (cause IN ('restored', 'ahead')),
  reason  text NOT NULL,
  since   timestamptz NOT NULL DEFAULT now()
);

-- What a node has, the database does not, and an operator decided to leave alone.
CREATE TABLE recovery_left (
  vm_id   uuid NOT NULL,
  node_id uuid NOT NULL REFERENCES nodes(id) ON DELETE CASCADE,
  name    text NOT NULL,
  left_by text NOT NULL,
  left_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vm_id, node_id)
);

-- The incarnations that this one follows on: a node of one of them follows, too.
ALTER TABLE cluster ADD COLUMN predecessors uuid[] NOT NULL DEFAULT '{}';

-- Numbers up to here are of a time before a restore: who resumes from one has to
-- read everything anew.
ALTER TABLE sequencer ADD COLUMN event_base bigint NOT NULL DEFAULT 0;

-- Why a VM is lost, if not by the forced removal of its node.
ALTER TABLE vms ADD COLUMN lost_reason text NOT NULL DEFAULT '';

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE vms DROP COLUMN lost_reason;
ALTER TABLE sequencer DROP COLUMN event_base;
ALTER TABLE cluster DROP COLUMN predecessors;
DROP TABLE recovery_left;
DROP TABLE recovery_nodes;
DROP TABLE recovery;
-- +goose StatementEnd
