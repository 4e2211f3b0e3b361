-- +goose Up
-- +goose StatementBegin

-- A console ticket opens one console, once, within half a minute: for clients that
-- cannot send a token with a WebSocket. Only its hash is kept, until it is spent.
CREATE TABLE console_tickets (
  hash        bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
  vm_id       uuid NOT NULL REFERENCES vms(id) ON DELETE CASCADE,
  -- the incarnation whose console it opens
  owner_epoch bigint NOT NULL,
  principal   text NOT NULL,
  role        role_name NOT NULL,
  -- the token that asked for it; null for a user of the local socket
  token_id    uuid REFERENCES tokens(id) ON DELETE CASCADE,
  expires_at  timestamptz NOT NULL
);
CREATE INDEX console_tickets_end ON console_tickets (expires_at);

-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP TABLE console_tickets;
-- +goose StatementEnd
