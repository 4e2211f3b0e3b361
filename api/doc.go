// Package api is the wire of /api/v1: documents, requests, errors. It imports
// the standard library only, so that any Go program can use it; package client
// is the SDK over it.
//
// A resource document is kind, name, project, labels, revision, spec, status,
// the same in API, command line and SDK. Field names are snake_case; sizes are
// whole bytes on the way out and also take "2GiB" on the way in; times are RFC
// 3339 in UTC.
package api
