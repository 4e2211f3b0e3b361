// Package cli is the command line, and the wiring of the program's four faces.
//
//	cli            commands: a noun and a verb each, one file per resource
//	cli/output     tables, JSON, YAML
//	cli/manifest   documents of files: strict YAML, places, differences
//	cli/local      "up": PostgreSQL, server and agents of one machine, supervised
//
// Commands use package client like any other program. Which server they talk to
// is decided in connect.go and nowhere else; what an error looks like in
// failure.go; what the exit code is in exit.go.
//
// The package keeps no state but the contexts file in the user's configuration
// folder, which holds tokens and is therefore readable by its owner alone.
package cli
