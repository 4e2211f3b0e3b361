-- +goose Up
-- +goose StatementBegin

-- The spine: tenancy, nodes, VMs (intent and observation), images, jobs with
-- their journal, events, audit.
--
-- Conventions. Keys are UUIDv7 made by the server. Every mutable row has a
-- revision, raised by trigger with updated_at, so that no writer can forget it.
-- Every user-owned row has a project_id. Times are for display: no lease and no
-- order depends on them. CHECKs make impossible combinations unrepresentable.

CREATE FUNCTION touch_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := now();
  NEW.revision := OLD.revision + 1;
  RETURN NEW;
END $$;

-- One row: which cluster this database is, and its secrets, sealed under a
-- key-encryption key that never enters the database.
CREATE TABLE cluster (
  singleton      boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  id             uuid NOT NULL,
  incarnation    uuid NOT NULL,
  ca_cert_pem    text NOT NULL,
  ca_key_sealed  bytea NOT NULL,
  cursor_key_sealed bytea NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE organizations (
  id         uuid PRIMARY KEY,
  name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  revision   bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE projects (
  id              uuid PRIMARY KEY,
  organization_id uuid NOT NULL REFERENCES organizations(id),
  name            text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  revision        bigint NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  UNIQUE (organization_id, name)
);

-- Machine tokens, join tokens and the setup token: only hashes are kept.
CREATE TYPE token_kind AS ENUM ('api', 'join', 'setup');
CREATE TYPE role_name AS ENUM ('administrator', 'reader');
CREATE TABLE tokens (
  id         uuid PRIMARY KEY,
  kind       token_kind NOT NULL,
  name       text NOT NULL,
  hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
  role       role_name,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  used_at    timestamptz,
  revoked_at timestamptz,
  CHECK ((kind = 'api') = (role IS NOT NULL)),
  CHECK (kind <> 'join' OR expires_at IS NOT NULL)
);
CREATE UNIQUE INDEX tokens_one_setup ON tokens (kind) WHERE kind = 'setup' AND used_at IS NULL;

-- A server process. beat grows while it lives; other servers watch the number
-- with their own clocks, so no wall clock decides who is dead.
CREATE TABLE servers (
  id         uuid PRIMARY KEY,
  address    text NOT NULL,
  version    text NOT NULL,
  beat       bigint NOT NULL DEFAULT 0,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at    timestamptz NOT NULL DEFAULT now()
);

-- A lease on a role among servers (sequencer, one row per reconciler). It lives
-- as long as its holder's row in servers beats. term fences: a write on behalf
-- of a lease names the term it believes in.
CREATE TABLE leases (
  name   text PRIMARY KEY,
  holder uuid,
  term   bigint NOT NULL DEFAULT 0 CHECK (term >= 0)
);

CREATE TYPE node_state AS ENUM ('active', 'cordoned', 'removed');
CREATE TABLE nodes (
  id              uuid PRIMARY KEY,
  name            text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  state           node_state NOT NULL DEFAULT 'active',
  simulated       boolean NOT NULL DEFAULT false,
  node_epoch      bigint NOT NULL DEFAULT 0,
  -- the renewal number last heard by any server; grows while the node lives
  lease_seq       bigint NOT NULL DEFAULT 0,
  seen_at         timestamptz,
  agent_version   text NOT NULL DEFAULT '',
  -- SHA-256 of the node's registered public key (SubjectPublicKeyInfo)
  key_hash        bytea NOT NULL CHECK (octet_length(key_hash) = 32),
  inventory       jsonb NOT NULL DEFAULT '{}',
  cpus            int NOT NULL DEFAULT 0 CHECK (cpus >= 0),
  memory_bytes    bigint NOT NULL DEFAULT 0 CHECK (memory_bytes >= 0),
  disk_bytes      bigint NOT NULL DEFAULT 0 CHECK (disk_bytes >= 0),
  -- what placed VMs have reserved; kept by the same transaction that places,
  -- so that two servers can never both give the last byte away
  used_cpus         int NOT NULL DEFAULT 0 CHECK (used_cpus >= 0),
  used_memory_bytes bigint NOT NULL DEFAULT 0 CHECK (used_memory_bytes >= 0),
  used_disk_bytes   bigint NOT NULL DEFAULT 0 CHECK (used_disk_bytes >= 0),
  revision        bigint NOT NULL DEFAULT 1,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX nodes_name ON nodes (name) WHERE state <> 'removed';

CREATE TYPE image_kind AS ENUM ('disk', 'kernel');
CREATE TYPE image_state AS ENUM ('uploading', 'ready', 'deleting');
CREATE TABLE images (
  id         uuid PRIMARY KEY,
  project_id uuid NOT NULL REFERENCES projects(id),
  name       text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  kind       image_kind NOT NULL,
  state      image_state NOT NULL DEFAULT 'uploading',
  cmdline    text NOT NULL DEFAULT '',
  job_id     uuid,
  revision   bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (project_id, name),
  CHECK (cmdline = '' OR kind = 'kernel')
);

CREATE TYPE image_role AS ENUM ('disk', 'kernel', 'initrd');
CREATE TABLE image_files (
  image_id      uuid NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  role          image_role NOT NULL,
  sha256        text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  size_bytes    bigint NOT NULL CHECK (size_bytes > 0),
  -- format is decided once, by our own inspector at import, and always passed on
  format        text NOT NULL CHECK (format IN ('qcow2', 'raw')),
  virtual_bytes bigint NOT NULL CHECK (virtual_bytes >= 0),
  PRIMARY KEY (image_id, role)
);
CREATE INDEX image_files_sha ON image_files (sha256);

-- Intent: what the user wants. Only the control plane writes it.
CREATE TYPE vm_power AS ENUM ('on', 'off');
CREATE TABLE vms (
  id           uuid PRIMARY KEY,
  project_id   uuid NOT NULL REFERENCES projects(id),
  name         text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  labels       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
  cpus         int NOT NULL CHECK (cpus BETWEEN 1 AND 512),
  memory_bytes bigint NOT NULL CHECK (memory_bytes >= 16777216),
  image_id     uuid REFERENCES images(id),
  power        vm_power NOT NULL DEFAULT 'off',
  node_id      uuid REFERENCES nodes(id),
  owner_epoch  bigint NOT NULL DEFAULT 0 CHECK (owner_epoch >= 0),
  -- whether cpus and memory_bytes are counted in the node's used_*; disk is
  -- counted from placement to deletion
  reserved     boolean NOT NULL DEFAULT false,
  -- counts the jobs on this VM; agents refuse commands of an earlier one
  op_seq       bigint NOT NULL DEFAULT 0,
  -- the one job that holds this VM; a second request is refused with its id
  job_id       uuid,
  -- why no node fits, per node and per rule; a document
  placement    jsonb,
  failure_code    text,
  failure_message text,
  failed_at       timestamptz,
  deleting     boolean NOT NULL DEFAULT false,
  revision     bigint NOT NULL DEFAULT 1,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  UNIQUE (project_id, name),
  CONSTRAINT failure_is_whole CHECK (
    (failure_code IS NULL) = (failure_message IS NULL) AND
    (failure_code IS NULL) = (failed_at IS NULL)),
  CONSTRAINT reserved_is_placed CHECK (NOT reserved OR node_id IS NOT NULL)
);
CREATE INDEX vms_node ON vms (node_id);
CREATE INDEX vms_image ON vms (image_id);
CREATE INDEX vms_job ON vms (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE storage_volumes (
  id         uuid PRIMARY KEY,
  project_id uuid NOT NULL REFERENCES projects(id),
  vm_id      uuid NOT NULL REFERENCES vms(id) ON DELETE CASCADE,
  slot       int NOT NULL CHECK (slot >= 0),
  size_bytes bigint NOT NULL CHECK (size_bytes > 0 AND size_bytes % 512 = 0),
  image_id   uuid REFERENCES images(id),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (vm_id, slot)
);

CREATE TABLE network_interfaces (
  id       uuid PRIMARY KEY,
  vm_id    uuid NOT NULL REFERENCES vms(id) ON DELETE CASCADE,
  slot     int NOT NULL CHECK (slot >= 0),
  mac      macaddr NOT NULL UNIQUE,
  -- [{"protocol","host_ip","host_port","guest_port"}]
  forwards jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(forwards) = 'array'),
  UNIQUE (vm_id, slot)
);

-- Observation: the last incarnation of a VM on a node, as that node's agent
-- reported it. Nobody else writes here; the control plane deletes a row with
-- its VM.
CREATE TYPE vm_phase AS ENUM ('starting', 'running', 'paused', 'stopping', 'suspended', 'exited', 'crashed');
CREATE TABLE instances (
  vm_id       uuid NOT NULL REFERENCES vms(id) ON DELETE CASCADE,
  owner_epoch bigint NOT NULL CHECK (owner_epoch > 0),
  node_id     uuid NOT NULL REFERENCES nodes(id),
  node_epoch  bigint NOT NULL,
  report_seq  bigint NOT NULL,
  phase       vm_phase NOT NULL,
  reason      text NOT NULL DEFAULT '',
  since       timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (vm_id, owner_epoch)
);
CREATE INDEX instances_node ON instances (node_id);

-- Jobs are workflows are what users watch: one table.
CREATE TYPE job_state AS ENUM ('queued', 'running', 'waiting', 'unwinding', 'succeeded', 'failed', 'cancelled', 'needs_attention');
CREATE TABLE jobs (
  id           uuid PRIMARY KEY,
  project_id   uuid REFERENCES projects(id),
  kind         text NOT NULL,
  target_kind  text NOT NULL,
  target_id    uuid NOT NULL,
  target_name  text NOT NULL,
  state        job_state NOT NULL DEFAULT 'queued',
  params       jsonb NOT NULL,
  op_seq       bigint NOT NULL DEFAULT 0,
  -- the server executing it, and the fencing token of that claim: it rises with
  -- each claim and goes along with every command as "attempt"
  holder       uuid,
  fence        bigint NOT NULL DEFAULT 0,
  -- a parked job is looked at again from here on, by the database's clock;
  -- nothing but patience depends on it
  wake_at      timestamptz NOT NULL DEFAULT now(),
  wait_reason  text NOT NULL DEFAULT '',
  -- counts Wake calls, so that one that comes while a step looks at the world
  -- is not lost when the step parks
  wakes        bigint NOT NULL DEFAULT 0,
  cancellable  boolean NOT NULL DEFAULT false,
  cancel_requested boolean NOT NULL DEFAULT false,
  progress     int NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
  error_code   text,
  error_message text,
  -- why it unwinds: kept while error_* tells what needs attention
  unwind_code  text,
  unwind_message text,
  created_by   text NOT NULL,
  request_id   text NOT NULL DEFAULT '',
  revision     bigint NOT NULL DEFAULT 1,
  created_at   timestamptz NOT NULL DEFAULT now(),
  started_at   timestamptz,
  finished_at  timestamptz,
  updated_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT finished_iff_terminal CHECK (
    (state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CONSTRAINT terminal_has_no_holder CHECK (
    state IN ('running', 'unwinding') OR holder IS NULL),
  CONSTRAINT unwind_says_why CHECK (
    (unwind_code IS NULL) = (unwind_message IS NULL) AND
    (state <> 'unwinding' OR unwind_code IS NOT NULL)),
  CONSTRAINT error_iff_not_well CHECK (
    (error_code IS NULL) = (error_message IS NULL) AND
    (state <> 'succeeded' OR error_code IS NULL) AND
    (state NOT IN ('failed', 'needs_attention') OR error_code IS NOT NULL))
);
CREATE INDEX jobs_open ON jobs (wake_at) WHERE state IN ('queued', 'running', 'waiting', 'unwinding');
CREATE INDEX jobs_target ON jobs (target_kind, target_id, id);
CREATE INDEX jobs_project ON jobs (project_id, id);

CREATE TYPE step_state AS ENUM ('running', 'done', 'failed', 'undoing', 'undone');
CREATE TABLE job_steps (
  job_id      uuid NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  position    int NOT NULL,
  name        text NOT NULL,
  state       step_state NOT NULL,
  output      jsonb,
  -- failures in a row of its do, later of its undo, that were worth another try
  failures    int NOT NULL DEFAULT 0,
  error_code  text,
  error_message text,
  started_at  timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (job_id, position),
  CONSTRAINT error_is_whole CHECK ((error_code IS NULL) = (error_message IS NULL)),
  CONSTRAINT failed_says_why CHECK (state <> 'failed' OR error_code IS NOT NULL)
);

ALTER TABLE vms ADD CONSTRAINT vms_job_fk FOREIGN KEY (job_id) REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE images ADD CONSTRAINT images_job_fk FOREIGN KEY (job_id) REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE idempotency_keys (
  principal    text NOT NULL,
  key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_hash bytea NOT NULL CHECK (octet_length(request_hash) = 32),
  status       int NOT NULL,
  response     jsonb NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (principal, key)
);

-- Events and audit records carry no number at insert: a reader of a sequence
-- skips a row that commits late. One elected server numbers committed rows;
-- readers follow that number alone.
CREATE TABLE events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  seq        bigint UNIQUE,
  project_id uuid,
  kind       text NOT NULL,
  object_kind text NOT NULL,
  object_id  uuid NOT NULL,
  object_name text NOT NULL DEFAULT '',
  job_id     uuid,
  data       jsonb NOT NULL DEFAULT '{}',
  at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_unnumbered ON events (id) WHERE seq IS NULL;

-- Numbering is serialized by the lock on this row, so that even two servers
-- that both believe to be the sequencer give each number once.
CREATE TABLE sequencer (
  singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  event_seq  bigint NOT NULL DEFAULT 0,
  audit_seq  bigint NOT NULL DEFAULT 0,
  audit_hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000'
);
INSERT INTO sequencer DEFAULT VALUES;

CREATE TABLE audit_log (
  id          bigint GENERATED ALWAYS AS IDENTITY,
  at          timestamptz NOT NULL DEFAULT now(),
  seq         bigint,
  hash        bytea,
  principal   text NOT NULL,
  role        text NOT NULL,
  origin      text NOT NULL,
  action      text NOT NULL,
  object_kind text NOT NULL,
  object_id   uuid,
  object_name text NOT NULL DEFAULT '',
  project_id  uuid,
  job_id      uuid,
  outcome     text NOT NULL CHECK (outcome IN ('accepted', 'denied')),
  request_id  text NOT NULL DEFAULT '',
  detail      jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (id, at),
  CHECK ((seq IS NULL) = (hash IS NULL))
) PARTITION BY RANGE (at);
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
CREATE INDEX audit_unnumbered ON audit_log (id) WHERE seq IS NULL;
CREATE INDEX audit_seq ON audit_log (seq);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.seq IS NULL AND NEW.seq IS NOT NULL
     AND to_jsonb(NEW) - 'seq' - 'hash' = to_jsonb(OLD) - 'seq' - 'hash' THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'audit_log is append-only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TRIGGER touch BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION touch_row();
CREATE TRIGGER touch BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION touch_row();
-- a heartbeat is not a change of the node: without this, every If-Match on a
-- node would fail within two seconds
CREATE TRIGGER touch BEFORE UPDATE OF name, state, simulated, node_epoch, agent_version, key_hash,
  inventory, cpus, memory_bytes, disk_bytes, used_cpus, used_memory_bytes, used_disk_bytes
  ON nodes FOR EACH ROW EXECUTE FUNCTION touch_row();
CREATE TRIGGER touch BEFORE UPDATE ON images FOR EACH ROW EXECUTE FUNCTION touch_row();
CREATE TRIGGER touch BEFORE UPDATE ON vms FOR EACH ROW EXECUTE FUNCTION touch_row();
CREATE TRIGGER touch BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION touch_row();

-- Two roles: the owner migrates; the application reads and writes rows and can
-- neither change the schema nor rewrite history. Roles are of the whole
-- PostgreSQL instance, so creating one that exists is not an error, and two
-- databases migrated at once may race to it.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'novacron_app') THEN
    CREATE ROLE novacron_app NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
GRANT USAGE ON SCHEMA public TO novacron_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO novacron_app;
REVOKE DELETE, TRUNCATE ON audit_log, audit_log_default FROM novacron_app;
-- the record of migrations is the owner's; the application only reads it
DO $$
BEGIN
  IF to_regclass('goose_db_version') IS NOT NULL THEN
    REVOKE INSERT, UPDATE, DELETE ON goose_db_version FROM novacron_app;
  END IF;
END $$;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO novacron_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO novacron_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO novacron_app;

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$ BEGIN RAISE EXCEPTION 'the first migration has no way back: drop the database'; END $$;
-- +goose StatementEnd
