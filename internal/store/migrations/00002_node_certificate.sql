-- +goose Up
-- When the node's certificate ends; null for one that joined before this was
-- kept, until it renews. For display: what counts is the certificate itself.
ALTER TABLE nodes ADD COLUMN certificate_expires_at timestamptz;

-- +goose Down
ALTER TABLE nodes DROP COLUMN certificate_expires_at;
