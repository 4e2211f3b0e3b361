-- +goose Up

-- Was it carried by a server, because its nodes do not reach each other?
ALTER TABLE migrations ADD COLUMN relayed boolean NOT NULL DEFAULT false;

-- Tickets that one node shows another, for which a server may join the two. They are good
-- until their job has ended.
CREATE TABLE relay_grants (
  ticket_hash  bytea PRIMARY KEY CHECK (length(ticket_hash) = 32),
  from_node_id uuid NOT NULL REFERENCES nodes(id),
  to_node_id   uuid NOT NULL REFERENCES nodes(id),
  job_id       uuid NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  created_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT two_nodes CHECK (from_node_id <> to_node_id)
);
CREATE INDEX relay_grants_job ON relay_grants (job_id);
GRANT SELECT, INSERT, DELETE ON relay_grants TO novacron_app;

-- +goose Down
DROP TABLE relay_grants;
ALTER TABLE migrations DROP COLUMN relayed;
