// Package domain is the floor of pure rules, one package a subject: what a VM,
// a node, an image or a job is, which transitions exist, who may do what, and
// where a VM goes. It knows no SQL, HTTP, JSON, logger or goroutine.
package domain
