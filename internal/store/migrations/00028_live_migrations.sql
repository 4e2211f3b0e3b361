-- +goose Up
-- +goose StatementBegin

-- What a live migration is asked for, how far it is and what it came to. A copy of a VM that
-- executes takes processors and memory of the node that it is held on, too.
ALTER TABLE migrations
  ADD COLUMN held_cpus         integer  NOT NULL DEFAULT 0 CHECK (held_cpus >= 0),
  ADD COLUMN held_memory_bytes bigint   NOT NULL DEFAULT 0 CHECK (held_memory_bytes >= 0),
  -- {"bytes_per_second","downtime_ms","auto_converge","compression","channels","patience_ms","timeout_ms"}
  ADD COLUMN options           jsonb    NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
  -- {"memory_moved","memory_remaining","disks_moved","disks_remaining","rate","dirty_rate","expected_downtime_ms"}
  ADD COLUMN progress          jsonb    NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(progress) = 'object'),
  -- for how long the guest was halted: as the hypervisor tells, and as was seen from here
  ADD COLUMN downtime_ms       bigint   CHECK (downtime_ms >= 0),
  ADD COLUMN downtime_seen_ms  bigint   CHECK (downtime_seen_ms >= 0),
  -- of those that wait for their turn, the higher first
  ADD COLUMN priority          smallint NOT NULL DEFAULT 0,
  -- when its turn came
  ADD COLUMN begun_at          timestamptz;
UPDATE migrations SET begun_at = created_at;

-- How many migrations a node takes part in at once.
ALTER TABLE nodes
  ADD COLUMN migrations_out smallint NOT NULL DEFAULT 2 CHECK (migrations_out BETWEEN 1 AND 100),
  ADD COLUMN migrations_in  smallint NOT NULL DEFAULT 2 CHECK (migrations_in BETWEEN 1 AND 100);

-- A machine that waits for its memory is there, too.
ALTER TABLE instances DROP CONSTRAINT notes_of_live_guests,
  ADD CONSTRAINT notes_of_live_guests CHECK (phase IN ('starting', 'incoming', 'running', 'paused', 'stopping')
    OR (addresses = '{}' AND frozen_until IS NULL));

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DELETE FROM instances WHERE phase = 'incoming';
ALTER TABLE instances DROP CONSTRAINT notes_of_live_guests,
  ADD CONSTRAINT notes_of_live_guests CHECK (phase IN ('starting', 'running', 'paused', 'stopping')
    OR (addresses = '{}' AND frozen_until IS NULL));
ALTER TABLE nodes DROP COLUMN migrations_out, DROP COLUMN migrations_in;
ALTER TABLE migrations DROP COLUMN held_cpus, DROP COLUMN held_memory_bytes, DROP COLUMN options, DROP COLUMN progress,
  DROP COLUMN downtime_ms, DROP COLUMN downtime_seen_ms, DROP COLUMN priority, DROP COLUMN begun_at;
-- +goose StatementEnd
