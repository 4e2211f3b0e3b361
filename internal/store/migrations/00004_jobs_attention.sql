-- +goose Up
-- Jobs that wait for an operator are looked for by every scrape of the metrics.
CREATE INDEX jobs_attention ON jobs (kind) WHERE state = 'needs_attention';

-- +goose Down
DROP INDEX jobs_attention;
