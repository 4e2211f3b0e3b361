-- name: ClusterGet :one
SELECT id, incarnation, ca_cert_pem, ca_key_sealed, cursor_key_sealed FROM cluster;

-- name: ClusterInsert :execrows
INSERT INTO cluster (id, incarnation, ca_cert_pem, ca_key_sealed, cursor_key_sealed)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT (singleton) DO NOTHING;

-- name: OrganizationInsert :exec
INSERT INTO organizations (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING;

-- name: ProjectInsert :exec
INSERT INTO projects (id, organization_id, name)
SELECT $1, o.id, @name FROM organizations o WHERE o.name = @organization
ON CONFLICT (organization_id, name) DO NOTHING;

-- name: ProjectByName :one
SELECT p.id, p.name FROM projects p JOIN organizations o ON o.id = p.organization_id
WHERE o.name = @organization AND p.name = @name;

-- name: ServerAddresses :many
SELECT DISTINCT address FROM servers WHERE address <> '' ORDER BY address;
