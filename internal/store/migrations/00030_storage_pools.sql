-- +goose Up
-- +goose StatementBegin

-- A place for disks that several nodes have. A row comes with the first node that reports
-- it; the id is what the place itself is marked with.
CREATE TABLE storage_pools (
  id             uuid PRIMARY KEY,
  name           text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  kind           text NOT NULL DEFAULT 'shared_directory' CHECK (kind IN ('shared_directory')),
  -- of its file system, as the last node told that could use it
  capacity_bytes bigint NOT NULL DEFAULT 0 CHECK (capacity_bytes >= 0),
  -- what disks on record may take of it; kept by trigger
  used_bytes     bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
  revision       bigint NOT NULL DEFAULT 1,
  created_at     timestamptz NOT NULL DEFAULT now(),
  updated_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER touch BEFORE UPDATE ON storage_pools FOR EACH ROW EXECUTE FUNCTION touch_row();

-- What a node says of a pool, under the name that it has for it.
CREATE TABLE node_pools (
  node_id        uuid NOT NULL REFERENCES nodes(id),
  name           text NOT NULL,
  -- the pool that it is; NULL for a name that another pool has, and while nobody knows
  pool_id        uuid REFERENCES storage_pools(id),
  reported_id    uuid,
  capacity_bytes bigint NOT NULL DEFAULT 0,
  free_bytes     bigint NOT NULL DEFAULT 0,
  reason         text NOT NULL DEFAULT '',
  seen_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, name),
  CONSTRAINT unknown_is_not_usable CHECK (pool_id IS NOT NULL OR reason <> '')
);
CREATE INDEX node_pools_pool ON node_pools (pool_id);

ALTER TABLE storage_volumes ADD COLUMN pool_id uuid REFERENCES storage_pools(id);
CREATE INDEX storage_volumes_pool ON storage_volumes (pool_id) WHERE pool_id IS NOT NULL;

-- The check and the count are one statement, so that racing requests never give the last
-- byte away twice. What gets smaller or goes always may.
CREATE FUNCTION count_in_pool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.pool_id IS NOT NULL THEN
    UPDATE storage_pools SET used_bytes = used_bytes - OLD.size_bytes WHERE id = OLD.pool_id;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.pool_id IS NOT NULL THEN
    UPDATE storage_pools SET used_bytes = used_bytes + NEW.size_bytes WHERE id = NEW.pool_id
      AND (used_bytes + NEW.size_bytes <= capacity_bytes OR TG_OP = 'UPDATE' AND NEW.size_bytes <= OLD.size_bytes);
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the storage pool has no room' USING ERRCODE = 'check_violation', CONSTRAINT = 'storage_pools_room';
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER count_in_pool AFTER INSERT OR DELETE OR UPDATE OF size_bytes, pool_id ON storage_volumes
  FOR EACH ROW EXECUTE FUNCTION count_in_pool();

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
ALTER TABLE storage_volumes DROP COLUMN pool_id;
DROP TRIGGER count_in_pool ON storage_volumes;
DROP FUNCTION count_in_pool;
DROP TABLE node_pools;
DROP TABLE storage_pools;
-- +goose StatementEnd
