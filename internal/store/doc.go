// Package store reads and writes the tables of the product: one file per
// resource, SQL in query/, the schema in migrations/.
package store
